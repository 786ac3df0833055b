/* What a shell can't try from inside a container. `escape TRY [ARGUMENT...]` prints "ok", what it
 * found, or the name of the error. Built statically by the tests and bind mounted. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

static int tell(long result) {
    puts(result >= 0 ? "ok" : strerrorname_np(errno));
    return 0;
}

static int try_setns(const char *path) {
    int fd = open(path, O_RDONLY);
    return tell(fd < 0 ? -1 : setns(fd, 0));
}

static int try_abstract(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    memcpy(address.sun_path + 1, name, length);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return tell(
        connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)));
}

static int try_device(const char *path, int type, unsigned number_major, unsigned number_minor) {
    if (mknod(path, (mode_t)(type == 'b' ? S_IFBLK : S_IFCHR) | 0666, makedev(number_major, number_minor))) {
        return tell(-1);
    }
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    int saved = errno;
    unlink(path);
    errno = saved;
    return tell(fd);
}

static int list_descriptors(void) {
    for (int fd = 0; fd < 4096; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) {
            printf("%d ", fd);
        }
    }
    return putchar('\n') < 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "", *one = argc > 2 ? argv[2] : "";
    static const char nothing[128];
    static const struct {
        const char *name;
        long number;
        long arguments[5];
    } calls[] = {
        {"init_module", SYS_init_module, {0}},
        {"finit_module", SYS_finit_module, {0}},
        {"delete_module", SYS_delete_module, {(long)"x"}},
        {"kexec_load", SYS_kexec_load, {0}},
        {"bpf", SYS_bpf, {0, (long)nothing, sizeof nothing}},
        {"perf_event_open", SYS_perf_event_open, {(long)nothing, 0, -1, -1}},
        {"userfaultfd", SYS_userfaultfd, {0}},
        {"open_by_handle_at", SYS_open_by_handle_at, {AT_FDCWD, (long)nothing}},
        {"unshare_user", SYS_unshare, {CLONE_NEWUSER}},
        {"keyring", SYS_keyctl, {0, -3 /* KEY_SPEC_SESSION_KEYRING */}},
        {"request_key", SYS_request_key, {(long)"user", (long)"minibox-test"}},
        {"add_key", SYS_add_key, {(long)"user", (long)"x", (long)"x", 1, -3}},
        {"swapon", SYS_swapon, {(long)"/x"}},
        {"acct", SYS_acct, {(long)"/x"}},
        {"settimeofday", SYS_settimeofday, {(long)nothing}},
        {"iopl", SYS_iopl, {3}},
        {"io_uring_setup", SYS_io_uring_setup, {1, (long)nothing}},
        {"syslog", SYS_syslog, {3, (long)nothing, 16}},
        {"tiocsti", SYS_ioctl, {0, TIOCSTI, (long)"x"}},
        {"chroot", SYS_chroot, {(long)"/"}},
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (!strcmp(what, calls[i].name)) {
            const long *a = calls[i].arguments;
            return tell(syscall(calls[i].number, a[0], a[1], a[2], a[3], a[4]));
        }
    }
    if (!strcmp(what, "setns")) {
        return try_setns(one);
    }
    if (!strcmp(what, "abstract")) {
        return try_abstract(one);
    }
    if (!strcmp(what, "ptrace")) {
        return tell(ptrace(PTRACE_ATTACH, atoi(one), 0, 0));
    }
    if (!strcmp(what, "kill")) {
        return tell(kill(atoi(one), SIGCONT));
    }
    if (!strcmp(what, "device") && argc > 5) {
        return try_device(one, *argv[3], (unsigned)atoi(argv[4]), (unsigned)atoi(argv[5]));
    }
    if (!strcmp(what, "mount")) {
        return tell(mount("none", one, "tmpfs", 0, ""));
    }
    if (!strcmp(what, "remount")) {
        return tell(mount("none", one, NULL, MS_REMOUNT | MS_BIND, ""));
    }
    if (!strcmp(what, "umount")) {
        return tell(umount2(one, MNT_DETACH));
    }
    if (!strcmp(what, "write")) {
        return tell(open(one, O_WRONLY));
    }
    if (!strcmp(what, "descriptors")) {
        return list_descriptors();
    }
    return 2;
}
