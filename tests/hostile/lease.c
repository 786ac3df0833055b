/* Takes a lease on a file, again whenever the kernel has broken it: who opens the file waits for us, or is told to. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int held = 0;

    if (argc != 2)
        return 2;
    signal(SIGIO, SIG_IGN); /* that somebody waits */
    for (;;) {
        int fd = open(argv[1], O_RDWR | O_NONBLOCK);
        if (fd >= 0 && fcntl(fd, F_SETLEASE, F_WRLCK) == 0) {
            if (!held++)
                puts("ready"), fflush(stdout);
            sleep(1000);
        }
        if (fd >= 0)
            close(fd);
        usleep(1000);
    }
}
