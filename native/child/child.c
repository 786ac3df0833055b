/* What runs between clone and exec: the loop, and exec itself.
 *
 * Rules of this file and of child_*.c: no malloc, no stdio, no lock, nothing that the C library may
 * have left half done in the parent's other threads. Every operation returns 0 or -errno.
 * `make -C native check` holds the undefined symbols of their objects against symbols.allowed. */
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

/* Tell the parent where the command was looked for, and wait until it has seen enough: the mounts
 * below the root directory go with this process's namespace. */
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
        mb_child_receive(parent, &none, &no_fd); /* nothing comes, but the end */
    }
    return error;
}

/* exec(candidates, argv, envp): the first candidate that executes. As execvp(3), a candidate that
 * is there and can't be executed is reported over those that aren't there. */
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

/* Behind a filter the time stands still: where no clock can be read without the kernel, that is one more system call.
 */
static uint64_t now_ns(struct mb_child *child) {
    struct timespec time;
    if (!child->filtered) {
        clock_gettime(CLOCK_REALTIME, &time); /* the one clock that a time namespace doesn't shift on the way */
        child->now_ns = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
    }
    return child->now_ns;
}

/* Close all descriptors but the slots'. A caller's end of a socket that stayed open here would
 * keep this process from ever seeing that the caller is gone. */
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

/* Give the descriptors that are kept their numbers; what stands there moves away. */
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
    /* Python ignores SIGPIPE and handles SIGINT; an ignored signal would stay so over exec. The raw
     * call: the C library's sigaction leaves 32 and 33, its own, as some ancestor ignored them. */
    static const unsigned char default_action[64]; /* at least the kernel's struct sigaction; SIG_DFL is 0 */
    for (int number = 1; number < NSIG; number++) {
        syscall(SYS_rt_sigaction, number, default_action, NULL, sizeof(uint64_t));
    }
    /* SECBIT_NO_SETUID_FIXUP of a caller's would have root inside keep its capabilities when it becomes another user.
     * Of a new user namespace they are clear. Where a caller has locked them there is nothing that we could do. */
    if (prctl(PR_GET_SECUREBITS) > 0) {
        prctl(PR_SET_SECUREBITS, 0);
    }
    umask(0);
    /* Not mb_child_above_stdio: two slots may hold one descriptor. */
    for (size_t i = 0; i < MB_SLOTS; i++) {
        if (child->slots[i] >= 0 && child->slots[i] < 3) {
            child->slots[i] = fcntl(child->slots[i], F_DUPFD_CLOEXEC, 3);
        }
    }
    /* Close-on-exec: no stream that the caller was started with, but its end of a socket, say. */
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
