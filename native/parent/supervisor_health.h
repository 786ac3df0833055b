/* The health checks of a detached container: a command at a time, which does the rest. */
#ifndef MB_SUPERVISOR_HEALTH_H
#define MB_SUPERVISOR_HEALTH_H

#include <stdint.h>
#include <sys/types.h>

struct mb_health {
    char **command;                           /* NULL: it has no check */
    int64_t interval_ms;                      /* between the end of one and the next, and before the first */
    int64_t start_interval_ms, started_at_ms; /* the interval until then, or until one does well: exits with 0 */
    int64_t next_at_ms;                       /* INT64_MAX: never, or one is under way */
    pid_t pid;                                /* of that one; 0 for none */
};

/* Time the first, for a container that has just been started and that takes `start_period_ms` for it. */
void mb_health_begin(struct mb_health *health, int64_t now_ms, int64_t start_period_ms);

/* Start the next if it is time. */
void mb_health_on_time(struct mb_health *health, int64_t now_ms);

/* A child has ended, with a status as of wait(2); any may have. */
void mb_health_reaped(struct mb_health *health, pid_t pid, int status, int64_t now_ms);

#endif
