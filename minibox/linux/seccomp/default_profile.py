"""The default seccomp profile: which system calls a container may make.

It is an allow-list. Like Docker's default, it allows all calls that act only on what the process already has, and,
for each capability of the container, the calls which that capability is for. Where it differs from Docker's, a
comment says why. It is imported only to compile or show a filter.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minibox.oci.runtime import LinuxSeccomp, LinuxSeccompArg, LinuxSyscall

_ENOSYS, _EPERM = 38, 1

# Old and new forms of a call are listed together; names that an architecture lacks are skipped there.
_FILES = """
    access faccessat faccessat2 chdir fchdir getcwd umask open openat openat2 creat close close_range
    read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek readahead
    copy_file_range sendfile sendfile64 splice tee vmsplice
    truncate truncate64 ftruncate ftruncate64 fallocate fadvise64 fadvise64_64 cachestat
    sync syncfs fsync fdatasync sync_file_range
    stat stat64 fstat fstat64 lstat lstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs fstatfs64
    getdents getdents64 readlink readlinkat link linkat symlink symlinkat unlink unlinkat mkdir mkdirat
    rmdir rename renameat renameat2 mknod mknodat
    chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32
    utime utimes futimesat utimensat utimensat_time64
    getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat
    listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat
    file_getattr file_setattr
    fcntl fcntl64 flock dup dup2 dup3 pipe pipe2 name_to_handle_at
    inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark
    statmount listmount
"""
_WAITING = """
    poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
    eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64
"""
_MEMORY = """
    brk mmap mmap2 munmap mremap mprotect madvise mincore msync mlock mlock2 mlockall munlock munlockall
    remap_file_pages membarrier memfd_create memfd_secret pkey_alloc pkey_free pkey_mprotect mseal map_shadow_stack
"""
_PROCESSES = """
    fork vfork execve execveat exit exit_group wait4 waitid waitpid
    getpid getppid gettid getpgid getpgrp getsid setpgid setsid set_tid_address
    getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid getresgid32
    getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32
    setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32
    capget capset prctl seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
    lsm_get_self_attr lsm_set_self_attr lsm_list_modules
    getrlimit ugetrlimit setrlimit prlimit64 getrusage times sysinfo uname getcpu getrandom
    getpriority setpriority ioprio_get ioprio_set sched_yield sched_getaffinity sched_setaffinity
    sched_getparam sched_setparam sched_getscheduler sched_setscheduler sched_getattr sched_setattr
    sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64
    pidfd_open pidfd_send_signal process_mrelease rseq get_thread_area set_thread_area
    ptrace process_vm_readv process_vm_writev
"""  # ptrace is safe: since Linux 4.8 a tracer can't help its tracee to bypass the filter
_SIGNALS = """
    kill tkill tgkill pause restart_syscall sigaltstack rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
    sigaction signal sigpending sigprocmask sigreturn sigsuspend
"""
_TIME = """
    time gettimeofday nanosleep alarm getitimer setitimer adjtimex clock_adjtime clock_adjtime64
    clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
"""
_COMMUNICATION = """
    socketpair bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt
    send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
    futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue get_robust_list set_robust_list ipc
    msgget msgctl msgsnd msgrcv semget semctl semop semtimedop semtimedop_time64 shmget shmctl shmat shmdt
    mq_open mq_unlink mq_notify mq_getsetattr mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
"""

_ALWAYS = (_FILES, _WAITING, _MEMORY, _PROCESSES, _SIGNALS, _TIME, _COMMUNICATION)

_BY_MACHINE = {
    "x86_64": "arch_prctl modify_ldt uretprobe",
    "i686": "modify_ldt socketcall",
    "aarch64": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    "armv7l": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    "ppc64le": "sync_file_range2 swapcontext socketcall",
    "s390x": "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr socketcall",
    "riscv64": "riscv_flush_icache riscv_hwprobe",
}

#: The calls that each capability allows: those for which the kernel requires it.
_BY_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": """
        mount umount umount2 mount_setattr move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick
        clone clone3 unshare setns sethostname setdomainname quotactl quotactl_fd fanotify_init lookup_dcookie
        bpf perf_event_open syslog
    """,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_NICE": "get_mempolicy set_mempolicy mbind set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}

#: Numbers of calls that an older libseccomp doesn't know. Since Linux 5.1 a new call has the same number on all
#: architectures (except alpha), so one number each is enough.
NEW_NUMBERS = {
    "set_mempolicy_home_node": 450,
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}

_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "i686": ["SCMP_ARCH_X86"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    "armv7l": ["SCMP_ARCH_ARM"],
    "ppc64le": ["SCMP_ARCH_PPC64LE"],
    "s390x": ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
    "riscv64": ["SCMP_ARCH_RISCV64"],
}

# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}. In clone the bit of CLONE_NEWTIME belongs to the exit signal.
_NAMESPACE_FLAGS = 0x7E020000
# What a thread may stop sharing with its siblings: CLONE_{VM,FS,FILES,SIGHAND,THREAD,SYSVSEM}. Every other flag makes a
# namespace (also UNSHARE_EMPTY_MNTNS, whose bit isn't one of clone's namespaces), or doesn't exist yet.
_UNSHARED = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
# The families that Linux implements, except AF_ALG (38), the kernel's cryptography, through which a container could
# write to files of all others (CVE-2026-31431), and AF_VSOCK (40), which reaches the hypervisor from any namespace.
_FAMILIES = ((0, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45))
# PER_LINUX and PER_LINUX32, each with and without UNAME26, and the query for the current one.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_SYS_SOCKET = 1  # of socketcall
_ALL, _INT = (1 << 64) - 1, (1 << 32) - 1


def default_profile(capabilities: Iterable[str], machine: str = "") -> LinuxSeccomp:
    """Return the default profile for a container with these capabilities, as OCI ``linux.seccomp.program``.

    Refused calls fail with EPERM. ``clone3`` fails with ENOSYS: its flags are in memory, which a filter can't read,
    and the C library then falls back to ``clone``.

    Args:
        machine: as in uname(2); this machine by default.
    """
    machine = machine or os.uname().machine
    held = set(capabilities)
    names = {name for group in _ALWAYS for name in group.split()}
    names.update(_BY_MACHINE.get(machine, "").split())
    for capability, calls in _BY_CAPABILITY.items():
        if capability in held:
            names.update(calls.split())
    # The kernel uses these arguments as int, so compare only the low 32 bits: a higher bit would bypass the rule.
    rules: list[LinuxSyscall] = []
    if machine == "x86_64":
        # For i386 programs, whose arguments are in memory, which a filter can't read. This rule comes first, because
        # libseccomp adds an allowed socketcall to each rule for socket by itself.
        rules.append(
            {
                "names": ["socketcall"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": _ENOSYS,
                "args": [_masked(0, _INT, _SYS_SOCKET)],
            }
        )
    rules.append({"names": sorted(names), "action": "SCMP_ACT_ALLOW"})
    rules += [_allow("personality", _masked(0, _INT, value)) for value in _PERSONALITIES]
    rules += [_allow("socket", _masked(0, *block)) for block in blocks(*_FAMILIES)]
    # Without -t the container may have our user's own terminal, and these two could type into it.
    others = ((0, _TIOCSTI - 1), (_TIOCSTI + 1, _TIOCLINUX - 1), (_TIOCLINUX + 1, _INT))
    rules += [_allow("ioctl", _masked(1, *block)) for block in blocks(*others)]
    if "CAP_SYS_ADMIN" not in held:
        flags = 1 if machine == "s390x" else 0  # the first argument of s390's clone is the stack
        rules.append(_allow("clone", _masked(flags, _NAMESPACE_FLAGS, 0)))
        # Docker refuses all of unshare. Without a namespace flag it only gives a thread its own table of
        # files or working directory, which Samba and others need.
        rules.append(_allow("unshare", _masked(0, _ALL & ~_UNSHARED, 0)))
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": list(_ARCHITECTURES.get(machine, ())),
        "syscalls": rules,
    }


def blocks(*ranges: tuple[int, int]) -> list[tuple[int, int]]:
    """Return ``(mask, value)`` pairs such that exactly one matches each 32-bit number in ``(first, last)`` ranges.

    A filter can compare masked bits for equality, but not for a range. So we split each range into blocks whose sizes
    are powers of two.
    """
    pairs = []
    for first, last in ranges:
        while first <= last:
            size = first & -first or 1 << 32
            while first + size - 1 > last:
                size >>= 1
            pairs.append((_INT & ~(size - 1), first))
            first += size
    return pairs


def _allow(name: str, compared: LinuxSeccompArg) -> LinuxSyscall:
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [compared]}


def _masked(index: int, mask: int, value: int) -> LinuxSeccompArg:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
