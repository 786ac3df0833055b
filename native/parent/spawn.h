/* Start a process that runs a Plan. */
#ifndef MB_SPAWN_H
#define MB_SPAWN_H

#include "child/child.h"

#include <sys/types.h>

/* A record for a plan of `op_count` operations, in shared memory; NULL and errno when there is
 * none to be had. */
struct mb_record *mb_record_new(uint32_t op_count);
void mb_record_free(struct mb_record *record, uint32_t op_count);

/* Clone a process with `flags` (clone3's, without CLONE_PIDFD and CLONE_INTO_CGROUP, which are
 * added here), born in the cgroup of `cgroup_fd` (-1: the caller's), that runs `plan`. Its slots
 * 0 to slot_count-1 are the given descriptors, -1 for an empty one. Sound in a process with
 * threads. With CLONE_VM among the flags it returns when the child has ended (and must be given no
 * cgroup); a plan that waits for the caller would never end. Then waitpid(2) needs __WALL. Returns the pid and in
 * `pidfd` its pidfd, close-on-exec; or -errno. */
pid_t mb_spawn(const struct mb_plan *plan, uint64_t flags, int cgroup_fd, const int *slots, uint32_t slot_count,
               struct mb_record *record, int *pidfd);

#endif
