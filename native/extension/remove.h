/* Remove a file or a directory tree in one call: what a container leaves is a dozen directories, and the interpreter
 * needs ten times as many system calls for them. */
#ifndef MB_REMOVE_H
#define MB_REMOVE_H

/* Remove `name` in the directory `dir_fd`, and all below it, without following a link; nothing there is no error.
 * 0, or -errno of the first that resists: an immutable file, a closed directory, more than `depth` levels.
 * Then some may be gone, and the caller goes on with more patience. */
int mb_remove(int dir_fd, const char *name, int depth);

#endif
