/* The end of a container without Python: most ends are the same few unlinks, and a start of Python costs fifty times as
 * much as they do. */
#ifndef MB_END_H
#define MB_END_H

#include "plan.h"

struct mb_ended {
    int claim;  /* the live file, open for writing */
    int status; /* the exit status, as in a shell */
};

/* Execute a plan that `mb_end_load` has loaded. Returns 0, or -errno of the first operation that failed. Then Python
 * has to do the whole end: each operation may be executed again, and what is told to others comes after all that can
 * fail. */
int mb_end(const struct mb_plan *plan, struct mb_ended ended);

#endif
