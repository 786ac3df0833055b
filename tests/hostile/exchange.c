/* exchange DIRECTORY TARGET: 40 directories and 40 links to TARGET in DIRECTORY, which change places for ever. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAIRS = 40, FILES = 3 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void make_file(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, "inside\n", 7) != 7) {
        fail(path);
    }
    close(fd);
}

static void make_pair(int number, const char *target) {
    char name[32];
    snprintf(name, sizeof name, "l%d", number);
    if (symlink(target, name)) {
        fail(name);
    }
    snprintf(name, sizeof name, "d%d", number);
    if (mkdir(name, 0777)) {
        fail(name);
    }
    for (int file = 0; file < FILES; file++) {
        snprintf(name, sizeof name, "d%d/f%d", number, file);
        make_file(name);
    }
    snprintf(name, sizeof name, "d%d/inner", number);
    if (mkdir(name, 0777)) {
        fail(name);
    }
    snprintf(name, sizeof name, "d%d/inner/g", number);
    make_file(name);
}

/* Whether it could. */
static bool exchange(int number) {
    char link[16], directory[16];
    snprintf(link, sizeof link, "l%d", number);
    snprintf(directory, sizeof directory, "d%d", number);
    return !renameat2(AT_FDCWD, directory, AT_FDCWD, link, RENAME_EXCHANGE);
}

int main(int argc, char **argv) {
    if (argc != 3 || (mkdir(argv[1], 0777) && access(argv[1], W_OK)) || chdir(argv[1])) {
        fail("usage: exchange DIRECTORY TARGET");
    }
    for (int number = 0; number < PAIRS; number++) {
        make_pair(number, argv[2]);
        if (!exchange(number)) { /* what never changes places attacks nobody */
            fail("exchange");
        }
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        for (int number = 0; number < PAIRS; number++) {
            exchange(number);
        }
    }
}
