/* System calls and constants that Debian 12's C library or headers lack.
 *
 * Each wrapper is the bare call: -1 and errno on failure, no allocation, no lock, so that all of
 * them may be used between clone and exec. Numbers are from the kernel's uapi headers. */
#ifndef MB_SYSCALLS_H
#define MB_SYSCALLS_H

#include <errno.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef MOUNT_ATTR_IDMAP
#define MOUNT_ATTR_IDMAP 0x00100000
#endif
#ifndef MOVE_MOUNT_T_EMPTY_PATH
#define MOVE_MOUNT_T_EMPTY_PATH 0x00000040
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

/* linux/mount.h can't be included beside sys/mount.h before glibc 2.37, hence our own names. */
struct mb_mount_attr {
    uint64_t attr_set;
    uint64_t attr_clr;
    uint64_t propagation;
    uint64_t userns_fd;
};

/* struct clone_args of linux/sched.h, up to cgroup (Linux 5.7). */
struct mb_clone_args {
    uint64_t flags;
    uint64_t pidfd;
    uint64_t child_tid;
    uint64_t parent_tid;
    uint64_t exit_signal;
    uint64_t stack;
    uint64_t stack_size;
    uint64_t tls;
    uint64_t set_tid;
    uint64_t set_tid_size;
    uint64_t cgroup;
};

static inline pid_t mb_clone3(struct mb_clone_args *args) { return (pid_t)syscall(SYS_clone3, args, sizeof *args); }

static inline int mb_pivot_root(const char *new_root, const char *put_old) {
    return (int)syscall(SYS_pivot_root, new_root, put_old);
}

enum { MB_TREE_CLONE = 1 }; /* OPEN_TREE_CLONE */

static inline int mb_open_tree(int dirfd, const char *path, unsigned flags) {
    return (int)syscall(SYS_open_tree, dirfd, path, flags);
}

static inline int mb_move_mount(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
    return (int)syscall(SYS_move_mount, from_fd, from, to_fd, to, flags);
}

static inline int mb_mount_setattr(int dirfd, const char *path, unsigned flags, struct mb_mount_attr *attr) {
    return (int)syscall(SYS_mount_setattr, dirfd, path, flags, attr, sizeof *attr);
}

static inline int mb_fsopen(const char *fstype, unsigned flags) { return (int)syscall(SYS_fsopen, fstype, flags); }

static inline int mb_fspick(int dirfd, const char *path, unsigned flags) {
    return (int)syscall(SYS_fspick, dirfd, path, flags);
}

static inline int mb_fsconfig(int fd, unsigned command, const char *key, const void *value, int aux) {
    return (int)syscall(SYS_fsconfig, fd, command, key, value, aux);
}

static inline int mb_fsmount(int fd, unsigned flags, unsigned attributes) {
    return (int)syscall(SYS_fsmount, fd, flags, attributes);
}

static inline int mb_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
    struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
    return (int)syscall(SYS_openat2, dirfd, path, &how, sizeof how);
}

static inline int mb_pidfd_open(pid_t pid, unsigned flags) { return (int)syscall(SYS_pidfd_open, pid, flags); }

static inline int mb_pidfd_send_signal(int pidfd, int signal_number) {
    return (int)syscall(SYS_pidfd_send_signal, pidfd, signal_number, (siginfo_t *)0, 0);
}

/* Linux 6.9 */
static inline int mb_pidfd_kill_group(int pidfd) {
    return (int)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, (siginfo_t *)0, 4 /* PIDFD_SIGNAL_PROCESS_GROUP */);
}

static inline int mb_close_range(unsigned first, unsigned last, unsigned flags) {
    return (int)syscall(SYS_close_range, first, last, flags);
}

#endif
