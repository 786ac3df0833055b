/* Start a process that runs a Plan. */
#ifndef MB_SPAWN_H
#define MB_SPAWN_H

#include "child/child.h"

#include <sys/types.h>

/* Return a record for a plan of `op_count` operations, in shared memory; NULL and errno on failure. */
struct mb_record *mb_record_new(uint32_t op_count);
void mb_record_free(struct mb_record *record, uint32_t op_count);

/* Clone a process that runs `plan`, with `flags` (clone3's; CLONE_PIDFD and CLONE_INTO_CGROUP are added here), born
 * in the cgroup of `cgroup_fd` (-1: the caller's). Its slots 0 to slot_count-1 get the given descriptors, -1 for an
 * empty one. Safe in a process with threads. With CLONE_VM it returns only when the child has ended, so the plan
 * must not wait for the caller; no cgroup can be given, and waitpid(2) needs __WALL. Returns the pid, and its pidfd
 * (close-on-exec) in `pidfd`; or -errno. */
pid_t mb_spawn(const struct mb_plan *plan, uint64_t flags, int cgroup_fd, const int *slots, uint32_t slot_count,
               struct mb_record *record, int *pidfd);

#endif
