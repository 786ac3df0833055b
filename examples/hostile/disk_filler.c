/* Many files, each small enough. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
    static char block[1 << 20];
    for (int number = 0;; number++) {
        char name[32];
        snprintf(name, sizeof name, "/%d", number);
        int file = open(name, O_WRONLY | O_CREAT, 0600);
        if (file < 0 || write(file, block, sizeof block) != sizeof block) {
            perror(name);
            return 1;
        }
        close(file);
    }
}
