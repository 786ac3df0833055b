/* Operations on namespaces, limits, ids, capabilities and the seccomp filter. Rules as in child.c. */
#include "child/operations.h"
#include "syscalls.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

int mb_child_op_unshare(struct mb_child *child, const uint64_t *a) {
    (void)child;
    return result(unshare((int)a[0]));
}

/* setns(namespace, flags): for a user namespace, EINVAL also means that the process is already in it. */
int mb_child_op_setns(struct mb_child *child, const uint64_t *a) {
    int error = result(setns(slot(child, a[0]), (int)a[1]));
    struct stat own, joined;
    if (error == -EINVAL && a[1] == CLONE_NEWUSER && !fstatat(AT_FDCWD, "/proc/self/ns/user", &own, 0) &&
        !fstat(slot(child, a[0]), &joined) && own.st_ino == joined.st_ino && own.st_dev == joined.st_dev) {
        return 0;
    }
    return error;
}

/* Processes inside see a process as soon as it joins their pid namespace, while it still holds descriptors of the
 * host. They must not trace it or look at its descriptors before its exec. */
int mb_child_op_undumpable(struct mb_child *child, const uint64_t *a) {
    (void)child, (void)a;
    return result(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
}

/* clone_sibling(socket, flags): joining a pid namespace takes effect for children only. So continue as one, in new
 * namespaces by `flags`, but as a child of our parent; the calling process ends. The new process sends its pidfd
 * itself, so that it arrives before its other messages, whichever of the two is delayed. */
int mb_child_op_clone_sibling(struct mb_child *child, const uint64_t *a) {
    struct mb_clone_args args = {.flags = a[1] | CLONE_PARENT | CLONE_PARENT_SETTID,
                                 .parent_tid = (uint64_t)(uintptr_t)&child->record->sibling};
    pid_t pid = mb_clone3(&args);
    if (pid > 0) {
        _exit(0);
    }
    int pidfd = pid < 0 ? -1 : mb_pidfd_open(getpid(), 0);
    if (pidfd < 0) {
        return -errno;
    }
    int error = mb_child_send(slot(child, a[0]), MB_TAG_SIBLING, pidfd);
    close(pidfd);
    return error;
}

int mb_child_op_sethostname(struct mb_child *child, const uint64_t *a) {
    (void)child;
    return result(sethostname(text(a[0]), strlen(text(a[0]))));
}

int mb_child_op_setdomainname(struct mb_child *child, const uint64_t *a) {
    (void)child;
    return result(setdomainname(text(a[0]), strlen(text(a[0]))));
}

/* setrlimit(resource, soft, hard) */
int mb_child_op_setrlimit(struct mb_child *child, const uint64_t *a) {
    (void)child;
    struct rlimit limit = {a[1], a[2]};
    return result(setrlimit((__rlimit_resource_t)a[0], &limit));
}

int mb_child_op_umask(struct mb_child *child, const uint64_t *a) {
    (void)child;
    umask((mode_t)a[0]);
    return 0;
}

/* scheduler(bytes): a struct sched_attr; sched_setattr(2). */
int mb_child_op_scheduler(struct mb_child *child, const uint64_t *a) {
    return result(syscall(SYS_sched_setattr, 0, mb_plan_bytes(child->plan, a[0]).data, 0));
}

/* io_priority(class and priority): for this process; ioprio_set(2). */
int mb_child_op_io_priority(struct mb_child *child, const uint64_t *a) {
    (void)child;
    return result(syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, a[0]));
}

/* cpu_affinity(bytes): a mask, in whole words. */
int mb_child_op_cpu_affinity(struct mb_child *child, const uint64_t *a) {
    struct mb_bytes mask = mb_plan_bytes(child->plan, a[0]);
    return result(syscall(SYS_sched_setaffinity, 0, mask.size, mask.data));
}

/* memory_policy(mode, bytes): for the nodes in a mask of whole words. */
int mb_child_op_memory_policy(struct mb_child *child, const uint64_t *a) {
    struct mb_bytes nodes = mb_plan_bytes(child->plan, a[1]);
    const void *mask = nodes.size ? nodes.data : NULL;
    return result(syscall(SYS_set_mempolicy, a[0], mask, nodes.size ? 8 * nodes.size + 1 : 0));
}

int mb_child_op_personality(struct mb_child *child, const uint64_t *a) {
    (void)child;
    return result(syscall(SYS_personality, a[0]));
}

/* A new network namespace has its loopback down. */
int mb_child_op_loopback_up(struct mb_child *child, const uint64_t *a) {
    (void)child, (void)a;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    struct ifreq request = {.ifr_name = "lo"};
    int error = result(ioctl(fd, SIOCGIFFLAGS, &request));
    if (!error) {
        request.ifr_flags |= IFF_UP;
        error = result(ioctl(fd, SIOCSIFFLAGS, &request));
    }
    close(fd);
    return error;
}

/* session_keyring(needed): join a new one, because the caller's keys must not be found from inside. A kernel
 * without keyrings has none to find. If the quota is used up (EDQUOT), the caller's keyring stays, which is
 * acceptable only if a filter denies every call on keys: then a new one isn't needed. */
int mb_child_op_session_keyring(struct mb_child *child, const uint64_t *a) {
    (void)child;
    long keyring = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
    return keyring < 0 && errno != ENOSYS && (errno != EDQUOT || a[0]) ? -errno : 0;
}

/* The raw calls, since the C library's set*id functions signal all threads that it believes to exist. */

static int capabilities_of_self(struct __user_cap_data_struct data[2]) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    return result(syscall(SYS_capget, &header, data));
}

static int set_capabilities(const struct __user_cap_data_struct data[2]) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    return result(syscall(SYS_capset, &header, data));
}

/* set_fs_ids(uid, gid): use these ids for files but keep the capabilities, which a change from 0 removes from the
 * effective set. An overlay keeps the credentials it was mounted with, and below an id-mapped layer only mapped ids
 * can own new files. */
int mb_child_op_set_fs_ids(struct mb_child *child, const uint64_t *a) {
    (void)child;
    syscall(SYS_setfsgid, a[1]);
    syscall(SYS_setfsuid, a[0]);
    struct __user_cap_data_struct data[2];
    int error = capabilities_of_self(data);
    if (error) {
        return error;
    }
    data[0].effective = data[0].permitted;
    data[1].effective = data[1].permitted;
    return set_capabilities(data);
}

/* setgroups(bytes): an array of 32-bit group ids. */
int mb_child_op_setgroups(struct mb_child *child, const uint64_t *a) {
    struct mb_bytes groups = mb_plan_bytes(child->plan, a[0]);
    return result(syscall(SYS_setgroups, groups.size / sizeof(uint32_t), groups.data));
}

int mb_child_op_setresgid(struct mb_child *child, const uint64_t *a) {
    (void)child;
    return result(syscall(SYS_setresgid, a[0], a[0], a[0]));
}

/* setresuid(uid): the permitted capabilities survive until capset or exec. */
int mb_child_op_setresuid(struct mb_child *child, const uint64_t *a) {
    (void)child;
    if (prctl(PR_SET_KEEPCAPS, 1)) {
        return -errno;
    }
    return result(syscall(SYS_setresuid, a[0], a[0], a[0]));
}

/* cap_bounding(mask): what isn't in the mask can never be gained again, not even by a set-uid file. */
int mb_child_op_cap_bounding(struct mb_child *child, const uint64_t *a) {
    (void)child;
    for (unsigned long capability = 0; capability < 64; capability++) {
        int has = prctl(PR_CAPBSET_READ, capability);
        if (has < 0) {
            return 0; /* EINVAL: past the kernel's last capability */
        }
        if (has && !(a[0] >> capability & 1) && prctl(PR_CAPBSET_DROP, capability)) {
            return -errno;
        }
    }
    return 0;
}

/* raise_capabilities(): make all permitted capabilities effective again after a change of ids: loading a filter
 * takes CAP_SYS_ADMIN. */
int mb_child_op_raise_capabilities(struct mb_child *child, const uint64_t *a) {
    (void)a;
    struct __user_cap_data_struct data[2];
    int error = capabilities_of_self(data);
    for (int i = 0; i < 2 && !error; i++) {
        child->permitted[i] = data[i].effective = data[i].permitted;
    }
    child->has_permitted = !error;
    return error ? error : set_capabilities(data);
}

/* capset(effective, permitted, inheritable): set those of them that the caller has. Nobody can give more, and a
 * host that lacks one still runs containers. */
int mb_child_op_capset(struct mb_child *child, const uint64_t *a) {
    struct __user_cap_data_struct data[2];
    int error = child->has_permitted ? 0 : capabilities_of_self(data);
    for (int i = 0; i < 2 && !error; i++) {
        uint32_t had = child->has_permitted ? child->permitted[i] : data[i].permitted;
        data[i].effective = (uint32_t)(a[0] >> 32 * i) & had;
        data[i].permitted = (uint32_t)(a[1] >> 32 * i) & had;
        data[i].inheritable = (uint32_t)(a[2] >> 32 * i) & had;
    }
    return error ? error : set_capabilities(data);
}

/* cap_ambient(mask): kept when executing a file without capabilities. */
int mb_child_op_cap_ambient(struct mb_child *child, const uint64_t *a) {
    (void)child;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)) {
        return -errno;
    }
    for (unsigned long capability = 0; capability < 64; capability++) {
        if (a[0] >> capability & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)) {
            return -errno;
        }
    }
    return 0;
}

int mb_child_op_no_new_privs(struct mb_child *child, const uint64_t *a) {
    (void)child, (void)a;
    return result(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

static long load_filter(struct mb_bytes program, uint64_t flags) {
    if (program.size / 8 > USHRT_MAX) {
        errno = EINVAL; /* the kernel, which allows 4096, would answer the same */
        return -1;
    }
    struct {
        unsigned short length;
        const void *filter;
    } filter = {(unsigned short)(program.size / 8), program.data};
    return syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, flags, &filter);
}

/* seccomp(program, flags): an array of struct sock_filter. From here on the filter must allow each of our system
 * calls, so we make none except in the steps that follow. */
int mb_child_op_seccomp(struct mb_child *child, const uint64_t *a) {
    mb_child_unblock_signals(child);
    int error = result(load_filter(mb_plan_bytes(child->plan, a[0]), a[1]));
    child->filtered = !error;
    return error;
}

/* seccomp_listener(program, flags, slot): the same for a filter that asks a listener. */
int mb_child_op_seccomp_listener(struct mb_child *child, const uint64_t *a) {
    mb_child_unblock_signals(child);
    int listener = (int)load_filter(mb_plan_bytes(child->plan, a[0]), a[1]);
    child->filtered = listener >= 0;
    return mb_child_fill(child, a[2], listener);
}
