#include "spawn.h"
#include "syscalls.h"

#include <string.h>
#include <sys/mman.h>

static size_t record_size(uint32_t op_count) {
    return sizeof(struct mb_record) + op_count * sizeof(((struct mb_record *)0)->time[0]);
}

struct mb_record *mb_record_new(uint32_t op_count) {
    void *memory =
        mmap(NULL, record_size(op_count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void mb_record_free(struct mb_record *record, uint32_t op_count) { munmap(record, record_size(op_count)); }

pid_t mb_spawn(const struct mb_plan *plan, uint64_t flags, int cgroup_fd, const int *slots, uint32_t slot_count,
               struct mb_record *record, int *pidfd) {
    if (slot_count > MB_SLOTS) {
        return -EINVAL;
    }
    struct mb_child child = {.plan = plan, .record = record};
    memset(child.slots, -1, sizeof child.slots);
    memcpy(child.slots, slots, slot_count * sizeof *slots);

    struct mb_clone_args args = {
        .flags = flags | CLONE_PIDFD | (cgroup_fd < 0 ? 0 : CLONE_INTO_CGROUP),
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
        .cgroup = cgroup_fd < 0 ? 0 : (uint64_t)cgroup_fd,
    };
    /* A signal between clone and the child's reset of its handlers would run the parent's
     * handler in the child. */
    sigset_t all, saved;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved);
    pid_t pid = mb_clone3(&args);
    if (pid == 0) {
        mb_child_main(&child);
    }
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    return pid < 0 ? -error : pid;
}
