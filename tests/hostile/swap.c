/* swap DIRECTORY A B: A and B in DIRECTORY, two directories or a directory and a link, change places for ever. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 4 || chdir(argv[1]) || renameat2(AT_FDCWD, argv[2], AT_FDCWD, argv[3], RENAME_EXCHANGE)) {
        perror("usage: swap DIRECTORY A B");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        renameat2(AT_FDCWD, argv[2], AT_FDCWD, argv[3], RENAME_EXCHANGE);
    }
}
