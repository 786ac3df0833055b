#include "parent/supervisor_health.h"

#include <signal.h>
#include <unistd.h>

static void time_next(struct mb_health *health, int64_t now_ms) {
    int64_t interval_ms = now_ms < health->started_at_ms ? health->start_interval_ms : health->interval_ms;
    health->next_at_ms = health->command ? now_ms + interval_ms : INT64_MAX;
}

void mb_health_begin(struct mb_health *health, int64_t now_ms, int64_t start_period_ms) {
    health->started_at_ms = now_ms + start_period_ms;
    time_next(health, now_ms);
}

void mb_health_on_time(struct mb_health *health, int64_t now_ms) {
    if (now_ms < health->next_at_ms) {
        return;
    }
    health->next_at_ms = INT64_MAX;
    pid_t pid = vfork();
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execv(health->command[0], health->command);
        _exit(127);
    }
    if (pid > 0) {
        health->pid = pid;
    } else {
        time_next(health, now_ms);
    }
}

void mb_health_reaped(struct mb_health *health, pid_t pid, int status, int64_t now_ms) {
    if (pid != health->pid) {
        return;
    }
    health->pid = 0;
    if (status == 0) {
        health->started_at_ms = now_ms;
    }
    time_next(health, now_ms);
}
