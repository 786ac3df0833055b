/* The health checks of a detached container: it runs one command at a time, which does the rest. */
#ifndef MB_SUPERVISOR_HEALTH_H
#define MB_SUPERVISOR_HEALTH_H

#include <stdint.h>
#include <sys/types.h>

struct mb_health {
    char **command;                           /* NULL: no check */
    int64_t interval_ms;                      /* pause before the first check and after each */
    int64_t start_interval_ms, started_at_ms; /* the interval during the start period, until a check succeeds (exits
                                               * with 0) */
    int64_t next_at_ms;                       /* INT64_MAX: never, or a check is running */
    pid_t pid;                                /* of the running check; 0 for none */
};

/* Schedule the first check of a container that was just started, with a start period of `start_period_ms`. */
void mb_health_begin(struct mb_health *health, int64_t now_ms, int64_t start_period_ms);

/* Start the next check if it is time. */
void mb_health_on_time(struct mb_health *health, int64_t now_ms);

/* A child, perhaps a check, has ended with a status as of wait(2). */
void mb_health_reaped(struct mb_health *health, pid_t pid, int status, int64_t now_ms);

#endif
