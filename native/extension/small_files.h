/* Read or write many small files of one directory in a call. The interpreter would make six to ten system calls for
 * each and several objects for each of these, which takes longer than the kernel's own work. What isn't plain is left
 * to it. */
#ifndef MB_SMALL_FILES_H
#define MB_SMALL_FILES_H

#include "extension/list.h"

#include <stddef.h>

enum { MB_SMALL_BYTES = 1 << 16 }; /* the largest file that counts as small */

/* A file that was read. It is plain if it is regular, small, has one name and no extended attributes that an image may
 * have, and didn't change while it was read. Otherwise the rest says nothing, and none of its content is there. */
struct mb_small_file {
    struct mb_file file;
    uint32_t plain;
};

/* Read the files `names`, each of which ends with a zero byte, from the directory `dir_fd` without following links.
 * Don't call this where others may put a device in the place of a file: opening one may do something. `content` gets
 * the content of plain files, one after the other. Returns how many of the `count` files it has looked at: fewer if
 * `size` bytes aren't enough, but one at least if `size` is MB_SMALL_BYTES or more. */
uint32_t mb_read_small_files(int dir_fd, const char *names, uint32_t count, struct mb_small_file *files, char *content,
                             size_t size);

struct mb_new_file {
    int64_t modified_ns;
    uint32_t mode;
    uint32_t uid; /* (uint32_t)-1 keeps the one who makes it; gid, too */
    uint32_t gid;
    uint32_t size;
};

/* Make files with the next `size` bytes of `content` each. Returns how many of the `count` files were made: the next
 * one exists, was refused by the kernel, or inherits attributes from its directory, and nothing is left of it. */
uint32_t mb_write_small_files(int dir_fd, const char *names, uint32_t count, const struct mb_new_file *files,
                              const char *content);

#endif
