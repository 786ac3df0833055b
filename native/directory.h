/* Entries of directories as the kernel gives them. */
#ifndef MB_DIRECTORY_H
#define MB_DIRECTORY_H

#include <stdint.h>

struct entry { /* linux_dirent64, getdents(2) */
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

static inline int is_dots(const char *name) { return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])); }

#endif
