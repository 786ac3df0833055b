/* Remove a file or a directory tree in one call. A container leaves a dozen directories, and the interpreter would
 * need ten times as many system calls for them. The supervisor uses it, too. */
#ifndef MB_REMOVE_H
#define MB_REMOVE_H

/* Remove `name` in the directory `dir_fd`, and all below it, without following links; it need not exist. Returns 0,
 * or -errno of the first failure: an immutable file, a closed directory, more than `depth` levels. Some files may
 * be gone then, and the caller continues with more patience. */
int mb_remove(int dir_fd, const char *name, int depth);

/* Remove what is in a directory, except the names in `kept` (ends in NULL; may be NULL); else like `mb_remove`. */
int mb_remove_inside(int fd, char *const *kept, int depth);

enum { MB_REMOVE_DEPTH = 32 }; /* each level needs 4 KiB of the stack */

#endif
