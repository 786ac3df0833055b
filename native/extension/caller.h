/* What a new process gets from the thread that makes it, and a container is not given otherwise. */
#ifndef MB_CALLER_H
#define MB_CALLER_H

#include <stdint.h>

/* Numbers without a meaning of their own: two threads for which they are the same start the same processes. */
struct mb_caller {
    uint64_t number[96];
};

/* Of the calling thread: its process, ids and groups, capabilities, limits, CPUs, namespaces and root directory.
 * What costs more than a system call to ask for is left out: its cgroups, its oom_score_adj. */
void mb_caller(struct mb_caller *caller);

#endif
