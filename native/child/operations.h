/* What the operations of a Plan share among their files. */
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

/* A caller with closed standard streams gets low numbers for what it opens: out of the way of the
 * operation stdio, which would close them or leave them close-on-exec. */
int mb_child_above_stdio(int fd);

/* For the command, which starts with no signal blocked: before a filter of system calls, or where there is none. */
void mb_child_unblock_signals(const struct mb_child *child);

/* Give an environment the HOME that the operation home has found, for an empty one. */
void mb_child_put_home(const struct mb_child *child, char **environment);

/* Put a descriptor into a slot, and close what was in it; -1 is passed on as -errno. */
int mb_child_fill(struct mb_child *child, uint64_t argument, int fd);

/* Open `path` inside the root of slot `root`, where neither "..", nor a symlink, nor a magic link
 * of /proc leads out of it; with MB_NO_LINKS ELOOP where any link is on the way; or, with MB_HOST, as this
 * process sees it. */
int mb_child_open_in(const struct mb_child *child, uint64_t root, const char *path, int flags);

/* Is a file on a file system of this kind, by its number in linux/magic.h? */
bool mb_child_is_on(int fd, long magic);

/* Is a file that very device, and not something that somebody has put in its place? */
bool mb_child_is_device(int fd, mode_t mode, dev_t device);

/* Make the directory `path` and its missing parents; returns an O_PATH descriptor or -1. Where the image has a
 * link to nowhere, it is made where the link leads, inside of the root. */
int mb_child_make_directories(const struct mb_child *child, uint64_t root, const char *path, mode_t mode);

/* A descriptor of a mount point, which is made when missing, as above: a directory or a file. */
int mb_child_open_target(const struct mb_child *child, uint64_t root, const char *path, bool directory);

/* A new detached mount of a file system with the options "key,key=value,...", or -errno. */
int mb_child_new_mount(const char *fstype, const char *source, const char *options, unsigned attributes);

/* Bind a device of the host's to a path of a root: -ENXIO where it isn't the one that is meant. */
int mb_child_bind_device(const struct mb_child *child, const char *source, uint64_t root, const char *target,
                         mode_t mode, dev_t device);

/* Give a file system context its options: "key,key=value,key=\"value,value\",...". */
int mb_child_set_options(int fs, const char *options);

/* Copy what is in a directory to another, empty one: files, directories, links and nodes, with mode, owner and
 * times. */
int mb_child_copy(int from, int to);

/* One message on a socket; with `fd` >= 0 a descriptor rides along. */
int mb_child_send(int socket, uint32_t tag, int fd);

/* Wait for one message; its descriptor, if any, goes to *fd, else -1. */
int mb_child_receive(int socket, struct mb_message *message, int *fd);

#endif
