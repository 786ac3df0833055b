/* The exit record of a detached container: how it ended, as JSON for minibox. */
#ifndef MB_SUPERVISOR_EXIT_H
#define MB_SUPERVISOR_EXIT_H

#include "parent/end.h"

#include <signal.h>
#include <stdint.h>
#include <sys/types.h>

struct mb_exit {
    const char *path;
    int fd;      /* a descriptor of the future record */
    int relayed; /* see `mb_exit_relayed` */
};

/* Reserve the space at the start, since the disk may be full at the end. Returns 0 or -errno. */
int mb_exit_reserve(struct mb_exit *record);

/* Write it, with a status as of wait(2) and the bytes that the log has lost. Readers see all of it or nothing, if it is
 * `durable` even after a power loss. Returns what it says. */
struct mb_outcome mb_exit_write(struct mb_exit *record, int status, int timed_out, uint64_t log_lost_bytes,
                                int durable);

/* The name that our init takes when a signal has ended its command, followed by the number. */
#define MB_RELAYED "mb-signal-"

/* Return the signal that ended the command of our init, from how the init ended (it isn't reaped yet); 0 for none.
 * Any program can take that name and exit with 128 + N, so this counts only for a container with an init. */
int mb_exit_relayed(const siginfo_t *how);

/* The exit status as in a shell: 128 + N for signal N. */
int mb_exit_status(int status);

#endif
