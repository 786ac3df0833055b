/* look TRIES DIRECTORY...: what of the kernel's, where procfs may be, can be written to that may not be, or read.
 * It looks often, as somebody moves what is there; what it opens it asks for its file system, and writes nothing. */
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/vfs.h>
#include <unistd.h>

static void look(const char *directory, const char *name, int flags) {
    char path[4096], byte;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = open(path, flags | O_CLOEXEC);
    struct statfs found;
    if (fd >= 0 && !fstatfs(fd, &found) && found.f_type == PROC_SUPER_MAGIC) {
        if (flags == O_WRONLY || read(fd, &byte, 1) > 0) {
            printf("%s %s\n", flags == O_WRONLY ? "writable" : "readable", path);
        }
    }
    close(fd);
}

int main(int argc, char **argv) {
    static const char *const read_only[] = {"sysrq-trigger", "sys/kernel/core_pattern", "irq/default_smp_affinity"};
    static const char *const masked[] = {"kcore", "keys", "timer_list"};
    for (int tries = argc > 1 ? atoi(argv[1]) : 0; tries; tries--) {
        for (char **directory = argv + 2; *directory; directory++) {
            for (int file = 0; file < 3; file++) {
                look(*directory, read_only[file], O_WRONLY);
                look(*directory, masked[file], O_RDONLY);
            }
        }
    }
    puts("looked");
    return 0;
}
