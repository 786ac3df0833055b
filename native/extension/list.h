/* List a directory with the status of each file. The interpreter would make several objects for each file, which takes
 * as long as the system calls: most of what a cached build costs. */
#ifndef MB_LIST_H
#define MB_LIST_H

#include <stdint.h>

enum { MB_LIST_BYTES = 1 << 15 }; /* the size of `names`; `files` has room for a file of each shortest name */
enum { MB_LIST_FILES = MB_LIST_BYTES / 24 };

/* What changes when a file changes, and nothing that changes otherwise, such as the time of the last access. */
struct mb_file {
    uint64_t device;
    uint64_t inode;
    uint64_t size;
    int64_t modified_ns;
    int64_t changed_ns;
    uint32_t mode;
    uint32_t uid;
    uint32_t gid;
    uint32_t links;
    uint64_t node; /* the device that a device file stands for */
};

/* Get the status of a file by fstatat(2) with `flags`. Returns 0 or -errno. */
int mb_file_of(int dir_fd, const char *name, int flags, struct mb_file *file);

/* Read the next files of the open directory `dir_fd`, without following links. Each name in `names` ends with a zero
 * byte; `size` gets their length. Returns how many files there are, 0 at the end, or -errno. A file that is removed
 * meanwhile is left out. */
int mb_list(int dir_fd, struct mb_file *files, char *names, uint32_t *size);

#endif
