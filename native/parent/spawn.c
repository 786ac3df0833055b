#include "parent/spawn.h"
#include "syscalls.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

/* A process whose ids change becomes undumpable. That is a property of the memory, which a child of clone_and_wait
 * shares with us. So the last child to end restores it. */
static pthread_mutex_t dumpable_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned dumpable_holders;
static int dumpable_before, dumpable_over_forks;

/* Another thread may fork(2) meanwhile. The copy has none of those children and must not wait for them. */
static void before_fork(void) { pthread_mutex_lock(&dumpable_lock); }
static void parent_after_fork(void) { pthread_mutex_unlock(&dumpable_lock); }
static void child_after_fork(void) {
    if (dumpable_holders && dumpable_before == 1) {
        prctl(PR_SET_DUMPABLE, 1);
    }
    dumpable_holders = 0;
    pthread_mutex_unlock(&dumpable_lock);
}

static void dumpable_hold(void) {
    pthread_mutex_lock(&dumpable_lock);
    if (!dumpable_over_forks) {
        dumpable_over_forks = !pthread_atfork(before_fork, parent_after_fork, child_after_fork);
    }
    if (dumpable_holders++ == 0) {
        dumpable_before = prctl(PR_GET_DUMPABLE);
    }
    pthread_mutex_unlock(&dumpable_lock);
}

static void dumpable_release(void) {
    pthread_mutex_lock(&dumpable_lock);
    if (--dumpable_holders == 0 && dumpable_before == 1) {
        prctl(PR_SET_DUMPABLE, 1);
    }
    pthread_mutex_unlock(&dumpable_lock);
}

static size_t record_size(uint32_t op_count) {
    return sizeof(struct mb_record) + op_count * sizeof(((struct mb_record *)0)->time[0]);
}

struct mb_record *mb_record_new(uint32_t op_count) {
    void *memory = mmap(NULL, record_size(op_count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void mb_record_free(struct mb_record *record, uint32_t op_count) { munmap(record, record_size(op_count)); }

static int enter_child(void *child) { mb_child_main(child); }

/* vfork for a plan without an exec: the calling thread waits until the child has ended, so the child may use its
 * memory, including its errno; a fork would copy the page tables of a whole interpreter. Unlike vfork's, the child
 * has a stack of its own, because it doesn't return. Nor does it send SIGCHLD when it ends, so that a wait for any
 * child of the process doesn't reap it. */
static pid_t clone_and_wait(struct mb_child *child, int flags, int *pidfd) {
    const size_t size = 256 * 1024;
    char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) {
        return -1;
    }
    dumpable_hold();
    pid_t pid = clone(enter_child, stack + size, flags | CLONE_VFORK, child, pidfd);
    int error = errno;
    dumpable_release();
    munmap(stack, size);
    errno = error;
    return pid;
}

pid_t mb_spawn(const struct mb_plan *plan, uint64_t flags, int cgroup_fd, const int *slots, uint32_t slot_count,
               struct mb_record *record, int *pidfd) {
    if (slot_count > MB_SLOTS) {
        return -EINVAL;
    }
    struct mb_child child = {.plan = plan, .record = record, .report = -1};
    memset(child.slots, -1, sizeof child.slots);
    memcpy(child.slots, slots, slot_count * sizeof *slots);

    struct mb_clone_args args = {
        .flags = flags | CLONE_PIDFD | (cgroup_fd < 0 ? 0 : CLONE_INTO_CGROUP),
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .parent_tid = (uint64_t)(uintptr_t)&record->first,
        .exit_signal = SIGCHLD,
        .cgroup = cgroup_fd < 0 ? 0 : (uint64_t)cgroup_fd,
    };
    /* Otherwise a signal between clone and the child's reset of its handlers would run the parent's handler in the
     * child. */
    sigset_t all, saved;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved);
    pid_t pid;
    if (flags & CLONE_VM) {
        pid = clone_and_wait(&child, (int)args.flags, pidfd);
    } else {
        args.flags |= CLONE_PARENT_SETTID;
        pid = mb_clone3(&args);
    }
    if (pid == 0) {
        mb_child_main(&child);
    }
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    return pid < 0 ? -error : pid;
}
