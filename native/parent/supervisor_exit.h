/* The exit record of a detached container: how it ended, as JSON, for minibox to read. */
#ifndef MB_SUPERVISOR_EXIT_H
#define MB_SUPERVISOR_EXIT_H

#include <signal.h>
#include <stdint.h>
#include <sys/types.h>

struct mb_exit {
    const char *path;
    int fd;      /* what becomes the record */
    int relayed; /* see `mb_exit_relayed` */
};

/* Take the space for it at the start: the disk may be full at the end. Returns 0 or -errno. */
int mb_exit_reserve(struct mb_exit *record);

/* Write it, with a status as of wait(2), and how much the log has lost: a reader sees all of it or nothing, after a
 * power loss too. */
void mb_exit_write(struct mb_exit *record, int status, int timed_out, uint64_t log_lost_bytes);

/* What an init of ours calls itself when a signal has ended its command, before the number. */
#define MB_RELAYED "mb-signal-"

/* The signal that ended the command of an init of ours, by how the init itself has ended, which wasn't reaped; 0 for
 * none. Any program can call itself that and exit with 128 + N: it counts only for a container that has an init. */
int mb_exit_relayed(const siginfo_t *how);

/* The exit status as of a shell: 128 + N for signal N. */
int mb_exit_status(int status);

#endif
