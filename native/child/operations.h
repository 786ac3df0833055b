/* Shared by the files with the operations of a Plan. */
#ifndef MB_CHILD_OPERATIONS_H
#define MB_CHILD_OPERATIONS_H

#include "child/child.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/types.h>

#define MB_OP(name, arguments) int mb_child_op_##name(struct mb_child *child, const uint64_t *a);
#include "operations.def"
#undef MB_OP

static inline int result(long value) { return value < 0 ? -errno : 0; }

/* Arguments of the kinds s and z, v, and f. */
static inline const char *text(uint64_t argument) { return (const char *)(uintptr_t)argument; }

static inline char **vector(uint64_t argument) { return (char **)(uintptr_t)argument; }

static inline int slot(const struct mb_child *child, uint64_t argument) { return child->slots[argument]; }

/* If the caller's standard streams are closed, new descriptors get their low numbers. Move them out of the way of
 * the operation stdio, which would close them or leave them close-on-exec. */
int mb_child_above_stdio(int fd);

/* For the command, which starts with no signal blocked. Called before a seccomp filter is loaded, or if there is
 * none. */
void mb_child_unblock_signals(const struct mb_child *child);

/* Replace an empty HOME in an environment by the one that the operation home has found. */
void mb_child_put_home(const struct mb_child *child, char **environment);

/* Put a descriptor into a slot, and close what was in it; -1 is returned as -errno. */
int mb_child_fill(struct mb_child *child, uint64_t argument, int fd);

/* Open `path` inside the root of slot `root`: neither "..", nor a symlink, nor a magic link of /proc leads out of
 * it. With MB_NO_LINKS, any link gives ELOOP; with MB_HOST, paths are resolved as this process sees them. */
int mb_child_open_in(const struct mb_child *child, uint64_t root, const char *path, int flags);

/* Return whether a file is on a file system of this kind, a number of linux/magic.h. */
bool mb_child_is_on(int fd, long magic);

/* Return whether a file is exactly this device. */
bool mb_child_is_device(int fd, mode_t mode, dev_t device);

/* Make the directory `path` and its missing parents; return an O_PATH descriptor or -1. If a symlink of the image
 * leads nowhere, the directory is made where the link leads, inside the root. */
int mb_child_make_directories(const struct mb_child *child, uint64_t root, const char *path, mode_t mode);

/* Return a descriptor of a mount point; if missing, make it as above: a directory or a file. */
int mb_child_open_target(const struct mb_child *child, uint64_t root, const char *path, bool directory);

/* Return a new detached mount of a file system with the options "key,key=value,...", or -errno. */
int mb_child_new_mount(const char *fstype, const char *source, const char *options, unsigned attributes);

/* Bind a device of the host to a path of a root; -ENXIO if it isn't the right device. */
int mb_child_bind_device(const struct mb_child *child, const char *source, uint64_t root, const char *target,
                         mode_t mode, dev_t device);

/* Set the options of a file system context: "key,key=value,key=\"value,value\",...". */
int mb_child_set_options(int fs, const char *options);

/* Copy the content of a directory to another, empty one: files, directories, links and nodes, with mode, owner and
 * times. */
int mb_child_copy(int from, int to);

/* Send one message on a socket, with a descriptor if `fd` >= 0. */
int mb_child_send(int socket, uint32_t tag, int fd);

/* Wait for one message; *fd gets its descriptor, or -1. */
int mb_child_receive(int socket, struct mb_message *message, int *fd);

#endif
