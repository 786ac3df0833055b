/* The end of a container without Python: most ends are the same few unlinks, and a start of Python costs fifty times as
 * much as they do. */
#ifndef MB_END_H
#define MB_END_H

#include "plan.h"

#include <time.h>

struct mb_outcome {
    int claim;                   /* the live file, open for writing */
    int status, signal, relayed; /* the exit status, as in a shell; see supervisor_exit.h for the others */
    int timed_out;
    uint64_t log_lost;
    struct timespec finished;
    int64_t memory_peak, cpu_ns; /* what it has used, which the plan measures; -1: not counted */
};

/* Whether a plan leaves the container's directory. */
int mb_end_keeps(const struct mb_plan *plan);

/* Execute a plan that `mb_end_load` has loaded. Returns 0, or -errno of the first operation that failed. Then Python
 * has to do the whole end: each operation may be executed again, and what is told to others comes after all that can
 * fail. */
int mb_end(const struct mb_plan *plan, struct mb_outcome *ended);

#endif
