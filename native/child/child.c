/* The loop that runs between clone and exec, and exec itself.
 *
 * Rules of this directory: no malloc, no stdio, no lock, nothing that another thread of the parent may have left
 * half done in the C library. Every operation returns 0 or -errno. `make -C native check` compares the undefined
 * symbols of the objects with symbols.allowed. */
#include "child/operations.h"
#include "syscalls.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>

void mb_child_unblock_signals(const struct mb_child *child) {
    sigset_t none;
    if (!child->filtered) {
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
    }
}

/* Send the parent the root directory in which the command was looked for, and wait until it has seen enough: the
 * mounts below vanish with this process's namespace. */
static int exec_failed(struct mb_child *child, int error) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    child->record->error = -error;
    child->record->state = MB_FAILED;
    int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int parent = child->slots[MB_SLOT_STATUS];
    struct mb_message none;
    int no_fd;
    if (root >= 0 && !mb_child_send(parent, MB_TAG_ROOT, root)) {
        mb_child_receive(parent, &none, &no_fd); /* only the end of the socket can come */
    }
    return error;
}

/* exec(candidates, argv, envp): execute the first candidate that works. As in execvp(3), a candidate that exists
 * but can't be executed is reported rather than one that doesn't exist. */
int mb_child_op_exec(struct mb_child *child, const uint64_t *a) {
    int error = -ENOENT;
    mb_child_put_home(child, vector(a[2]));
    mb_child_unblock_signals(child);
    child->record->state = MB_EXEC;
    for (char **candidate = vector(a[0]); *candidate; candidate++) {
        execve(*candidate, vector(a[1]), vector(a[2]));
        if (errno != ENOENT && errno != ENOTDIR) {
            error = -errno;
            child->record->detail = (uint32_t)(candidate - vector(a[0]));
            if (errno != EACCES) {
                break;
            }
        }
    }
    return exec_failed(child, error);
}

static int (*const operations[])(struct mb_child *, const uint64_t *) = {
#define MB_OP(name, arguments) mb_child_op_##name,
#include "operations.def"
#undef MB_OP
};

/* After the filter the clock isn't read any more: reading it may take a system call, which the filter may forbid.
 */
static uint64_t now_ns(struct mb_child *child) {
    struct timespec time;
    if (!child->filtered) {
        clock_gettime(CLOCK_REALTIME, &time); /* the one clock that a time namespace doesn't shift */
        child->now_ns = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
    }
    return child->now_ns;
}

/* Close all descriptors except the slots'. If the caller's end of a socket stayed open here, this process would
 * never see that the caller is gone. */
static void close_others(const struct mb_child *child) {
    for (unsigned from = 3;;) {
        unsigned next = UINT_MAX;
        for (size_t i = 0; i < MB_SLOTS; i++) {
            if (child->slots[i] >= (int)from && (unsigned)child->slots[i] < next) {
                next = (unsigned)child->slots[i];
            }
        }
        if (next > from) {
            mb_close_range(from, next - 1, 0);
        }
        if (next == UINT_MAX) {
            return;
        }
        from = next + 1;
    }
}

static _Noreturn void fail(const struct mb_child *child, int error) {
    child->record->error = -error;
    child->record->state = MB_FAILED;
    bool told = child->report < 0 || write(child->report, child->record, sizeof *child->record) > 0;
    _exit(told ? 1 : 2);
}

/* Give kept descriptors their numbers; move away what has these numbers now. */
static void place_kept(struct mb_child *child) {
    const int *kept = child->slots + MB_SLOT_FIRST_KEPT;
    int end = 3;
    while (end - 3 < MB_SLOT_END_OF_KEPT - MB_SLOT_FIRST_KEPT && kept[end - 3] >= 0) {
        end++;
    }
    for (int target = 3; target < end; target++) {
        for (size_t i = 0; i < MB_SLOTS; i++) {
            if (child->slots[i] == target && i != MB_SLOT_FIRST_KEPT + (size_t)(target - 3)) {
                child->slots[i] = fcntl(target, F_DUPFD_CLOEXEC, end);
            }
        }
        dup2(kept[target - 3], target);
        child->slots[MB_SLOT_FIRST_KEPT + target - 3] = target;
        fcntl(target, F_SETFD, 0);
    }
}

_Noreturn void mb_child_main(struct mb_child *child) {
    struct mb_record *record = child->record;
    /* Python ignores SIGPIPE and handles SIGINT; an exec would keep the ignored signal. The raw call, because the C
     * library's sigaction doesn't touch its own 32 and 33, which some ancestor may have ignored. */
    static const unsigned char default_action[64]; /* at least the kernel's struct sigaction; SIG_DFL is 0 */
    for (int number = 1; number < NSIG; number++) {
        syscall(SYS_rt_sigaction, number, default_action, NULL, sizeof(uint64_t));
    }
    /* With the caller's SECBIT_NO_SETUID_FIXUP, root inside would keep its capabilities when it becomes another
     * user. A new user namespace clears it. If the caller has locked it, we can do nothing. */
    if (prctl(PR_GET_SECUREBITS) > 0) {
        prctl(PR_SET_SECUREBITS, 0);
    }
    umask(0);
    /* Not mb_child_above_stdio, since two slots may hold one descriptor. */
    for (size_t i = 0; i < MB_SLOTS; i++) {
        if (child->slots[i] >= 0 && child->slots[i] < 3) {
            child->slots[i] = fcntl(child->slots[i], F_DUPFD_CLOEXEC, 3);
        }
    }
    /* Close-on-exec, because it may be the caller's end of a socket, and not a stream. */
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) == FD_CLOEXEC) {
            close(fd);
        }
    }
    place_kept(child);
    close_others(child);
    for (uint32_t i = 0; i < child->plan->op_count; i++) {
        const struct mb_op *op = &child->plan->ops[i];
        record->index = i;
        record->time[i].begin_ns = now_ns(child);
        int error = operations[op->code](child, op->argument);
        record->time[i].end_ns = now_ns(child);
        if (error) {
            fail(child, error);
        }
    }
    record->state = MB_DONE;
    _exit(0);
}
