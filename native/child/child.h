/* The interpreter: runs a loaded Plan in a freshly cloned process. */
#ifndef MB_CHILD_H
#define MB_CHILD_H

#include "plan.h"

#include <limits.h>
#include <stdbool.h>

/* The slot of the socket to the parent: SOCK_SEQPACKET, close-on-exec. */
#define MB_SLOT_STATUS 0

/* From this slot on: descriptors that are 3 and so on in the process, from its begin to its end. */
#define MB_SLOT_FIRST_KEPT 512
#define MB_SLOT_END_OF_KEPT 768

/* What hooks that it runs itself write to, and behind it their errors; /dev/null when empty. */
#define MB_SLOT_HOOKS_OUTPUT 1235

enum mb_state {
    MB_RUNNING = 0, /* in set-up; a process that ends now died in operation `index` */
    MB_EXEC = 1,    /* about to execve: if the status socket then closes, the command runs */
    MB_FAILED = 2,  /* operation `index` answered `error` */
    MB_DONE = 3,    /* the list ended without an exec */
    MB_WAITING = 4, /* at the gate */
};

/* When an operation ran. */
struct mb_time {
    uint64_t begin_ns; /* CLOCK_REALTIME */
    uint64_t end_ns;
};

/* One page or more shared by parent and child, the only thing that the child writes of its
 * progress: it costs no system call and tells the parent how far a killed child came. */
struct mb_record {
    uint32_t state;
    uint32_t index;        /* of the operation under way */
    int32_t error;         /* errno of the operation that failed */
    uint32_t detail;       /* exec: index of the candidate that was there */
    uint32_t sibling;      /* clone_sibling: the pid, from before it runs */
    uint32_t reserved;
    struct mb_time time[]; /* one an operation */
};

/* A message on the status socket, either way; at most one descriptor rides along. */
struct mb_message {
    uint32_t tag;
    uint32_t reserved;
};

#define MB_TAG_SIBLING 0xfffffffeu /* clone_sibling: the pidfd of the process that goes on */
#define MB_TAG_ROOT 0xffffffffu    /* exec failed: the container's root directory, for the diagnosis */

struct mb_child {
    const struct mb_plan *plan;
    struct mb_record *record;
    int report;      /* once past a gate: a file that is told of a failure, else -1 */
    bool filtered;   /* a filter of system calls is loaded, and may forbid any */
    uint64_t now_ns; /* when the last operation began or ended */
    bool has_permitted;
    uint32_t permitted[2]; /* capabilities, asked for before the filter */
    int slots[MB_SLOTS];
    char home[PATH_MAX]; /* "HOME=..." for the command; empty: as its environment says */
};

/* Run the plan to its exec or its end; never returns. Called with all signals blocked. */
_Noreturn void mb_child_main(struct mb_child *child);

#endif
