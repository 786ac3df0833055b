#include <fcntl.h>
#include <unistd.h>

int main(void) {
    static char block[1 << 20];
    int file = open("/large", O_WRONLY | O_CREAT, 0600);
    while (write(file, block, sizeof block) > 0) {
    }
    return 0;
}
