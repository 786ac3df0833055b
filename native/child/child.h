/* The interpreter: runs a loaded Plan in a newly cloned process. */
#ifndef MB_CHILD_H
#define MB_CHILD_H

#include "plan.h"

#include <limits.h>
#include <stdbool.h>

/* The slot of the socket to the parent: SOCK_SEQPACKET, close-on-exec. */
#define MB_SLOT_STATUS 0

/* From this slot on: descriptors that become 3, 4 and so on, and stay open in the process. */
#define MB_SLOT_FIRST_KEPT 512
#define MB_SLOT_END_OF_KEPT 768

/* The output of hooks that the child runs; the next slot is for their errors. /dev/null if empty. */
#define MB_SLOT_HOOKS_OUTPUT 1235

enum mb_state {
    MB_RUNNING = 0, /* setting up; if the process ends now, it died in operation `index` */
    MB_EXEC = 1,    /* about to execve: if the status socket closes now, the command is running */
    MB_FAILED = 2,  /* operation `index` failed with `error` */
    MB_DONE = 3,    /* the list ended without an exec */
    MB_WAITING = 4, /* at the gate */
};

/* When an operation ran. */
struct mb_time {
    uint64_t begin_ns; /* CLOCK_REALTIME */
    uint64_t end_ns;
};

/* One or more pages shared by parent and child. The child records its progress only here: it takes no system call,
 * and tells the parent how far a killed child came. */
struct mb_record {
    uint32_t state;
    uint32_t index;        /* of the current operation */
    int32_t error;         /* errno of the failed operation */
    uint32_t detail;       /* exec: index of the candidate that exists */
    uint32_t first;        /* the process's pid, set before it runs, as its maker may be killed before it can tell */
    uint32_t sibling;      /* clone_sibling: the sibling's pid, likewise */
    struct mb_time time[]; /* one for each operation */
};

/* A message on the status socket, either way, with at most one descriptor. */
struct mb_message {
    uint32_t tag;
    uint32_t reserved;
};

#define MB_TAG_SIBLING 0xfffffffeu /* clone_sibling: the pidfd of the process that continues */
#define MB_TAG_ROOT 0xffffffffu    /* exec failed: the container's root directory, for the diagnosis */

struct mb_child {
    const struct mb_plan *plan;
    struct mb_record *record;
    int report;      /* after a gate: the file to report a failure to, else -1 */
    bool filtered;   /* a seccomp filter is loaded, and may forbid any call */
    uint64_t now_ns; /* when the last operation began or ended */
    bool has_permitted;
    uint32_t permitted[2]; /* capabilities, read before the filter */
    int slots[MB_SLOTS];
    char home[PATH_MAX]; /* "HOME=..." for the command; empty: use its environment */
};

/* Run the plan until its exec or its end; never returns. Call it with all signals blocked. */
_Noreturn void mb_child_main(struct mb_child *child);

#endif
