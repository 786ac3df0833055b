/* The name server reads what containers send. If one of them finds a fault in it, this is what it has won: a process
 * of an unused user, without files, that can open sockets for DNS. */
#include "dns/internal.h"

#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef __x86_64__
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

enum { NOBODY = 65534 };

static const int allowed[] = {
    SYS_epoll_pwait,   SYS_epoll_ctl, SYS_read,       SYS_recvfrom, SYS_recvmsg,
    SYS_sendto,        SYS_accept4,   SYS_close,      SYS_connect,  SYS_openat,
    SYS_getdents64,    SYS_lseek,     SYS_fcntl,      SYS_fstat,    SYS_newfstatat,
    SYS_mmap,          SYS_munmap,    SYS_mremap,     SYS_brk,      SYS_getrandom,
    SYS_clock_gettime, SYS_exit,      SYS_exit_group, SYS_madvise,  SYS_inotify_add_watch,
#ifdef SYS_epoll_wait
    SYS_epoll_wait,
#endif
};

/* Only these calls; of sockets only those of the Internet. Anything else fails with EPERM. */
static int filter_calls(void) {
#ifdef ARCHITECTURE
    enum { COUNT = sizeof allowed / sizeof *allowed };
    static struct sock_filter code[COUNT * 2 + 10];
    unsigned short length = 0;
    code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
    code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < COUNT; i++) {
        code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], 0, 1);
        code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 4);
    code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]));
    code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 1, 0);
    code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 0, 1);
    code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    struct sock_fprog program = {length, code};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) && errno != EINVAL ? -errno : 0; /* not in the kernel */
#else
    return 0;
#endif
}

int mb_dns_confine(int tables) {
    struct rlimit files;
    static const struct rlimit none = {0, 0};
    if (fchdir(tables) || chroot(".") || chdir("/") || getrlimit(RLIMIT_NOFILE, &files)) {
        return -errno;
    }
    files.rlim_cur = files.rlim_max; /* two sockets for each member, and those of their queries */
    if (setrlimit(RLIMIT_NOFILE, &files) || setrlimit(RLIMIT_CORE, &none) || setrlimit(RLIMIT_FSIZE, &none) ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) {
        return -errno;
    }
    /* In a user namespace that has no such user there is no other to become. */
    if ((setgroups(0, NULL) && errno != EPERM) || (setresgid(NOBODY, NOBODY, NOBODY) && errno != EINVAL) ||
        (setresuid(NOBODY, NOBODY, NOBODY) && errno != EINVAL)) {
        return -errno;
    }
    return filter_calls();
}
