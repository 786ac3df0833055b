/* Each of its threads and children burns too little to be caught alone. */
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    for (;;) {
        for (int number = 0; number < 8; number++) {
            if (!fork()) {
                while (clock() < CLOCKS_PER_SEC / 20) {
                }
                _exit(0);
            }
        }
        while (wait(0) > 0) {
        }
    }
}
