/* What a new process inherits from the thread that makes it, unless the container is given its own. */
#ifndef MB_CALLER_H
#define MB_CALLER_H

#include <stdint.h>

/* Numbers without a meaning of their own. Two threads with the same numbers start the same processes. */
struct mb_caller {
    uint64_t number[96];
};

/* Describe the calling thread: its process, ids and groups, capabilities, limits, CPUs, namespaces and root
 * directory. Its cgroups and its oom_score_adj are left out, since each costs more than a system call. */
void mb_caller(struct mb_caller *caller);

#endif
