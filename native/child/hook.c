/* The operation hook: run a program of the bundle's author in the container's namespaces, before the command. Rules
 * as in child.c. */
#include "child/operations.h"
#include "syscalls.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* Set standard input, output and error. None of the sources is below 3: a descriptor that already has the right
 * number would stay close-on-exec. */
static int set_streams(const struct mb_child *child, int state) {
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0 && null < 3) {
        null = fcntl(null, F_DUPFD_CLOEXEC, 3);
    }
    int input = fcntl(state, F_DUPFD_CLOEXEC, 3);
    if (input < 0 || lseek(input, 0, SEEK_SET) < 0 || dup2(input, 0) < 0) {
        return -1;
    }
    for (int fd = 1; fd < 3; fd++) {
        int output = child->slots[MB_SLOT_HOOKS_OUTPUT + fd - 1];
        output = output < 0 ? null : output;
        if (output < 0) {
            close(fd);
        } else if (dup2(output, fd) < 0) {
            return -1;
        }
    }
    return 0;
}

static _Noreturn void become_hook(const struct mb_child *child, int state, const uint64_t *a) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || set_streams(child, state)) {
        _exit(126);
    }
    if (a[5] != MB_HOST) {
        umask(022);
        if (fchdir(slot(child, a[5]))) {
            _exit(126);
        }
    }
    mb_close_range(3, UINT_MAX, CLOSE_RANGE_CLOEXEC);
    mb_child_unblock_signals(child);
    execve(text(a[1]), vector(a[2]), vector(a[3]));
    _exit(127);
}

/* hook(state, path, argv, environment, timeout, root): `state` is a file that becomes its standard input; the
 * timeout is in seconds, 0 for none. It runs in the directory `root` with a usual umask; with MB_HOST, in the
 * command's directory with the command's umask. ECANCELED means that it failed; its wait status is in the record's
 * detail. */
int mb_child_op_hook(struct mb_child *child, const uint64_t *a) {
    int pidfd = -1, status = 0;
    struct mb_clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)&pidfd, .exit_signal = SIGCHLD};
    pid_t pid = mb_clone3(&args);
    if (pid == 0) {
        become_hook(child, slot(child, a[0]), a);
    }
    if (pid < 0) {
        return -errno;
    }
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    int timeout_ms = !a[4] ? -1 : a[4] > INT_MAX / 1000 ? INT_MAX : (int)a[4] * 1000, ready;
    do {
        ready = poll(&ended, 1, timeout_ms);
    } while (ready < 0 && errno == EINTR);
    int error = ready < 0 ? -errno : ready ? 0 : -ETIMEDOUT;
    if (error) {
        mb_pidfd_send_signal(pidfd, SIGKILL);
    }
    close(pidfd);
    long waited;
    do {
        waited = syscall(SYS_wait4, pid, &status, 0, NULL);
    } while (waited < 0 && errno == EINTR);
    if (!error && status) {
        child->record->detail = (uint32_t)status;
        error = -ECANCELED;
    }
    return error;
}
