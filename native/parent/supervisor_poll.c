#include "parent/supervisor_poll.h"

#include <errno.h>
#include <time.h>

void mb_poll(struct pollfd *ends, nfds_t count, int retry_ms, int timeout_ms) {
    struct pollfd open[MB_POLL_MAX];
    nfds_t opened = 0;
    for (nfds_t i = 0; i < count; i++) {
        ends[i].revents = 0;
        if (ends[i].fd >= 0) {
            open[opened++] = ends[i];
        }
    }
    int failed = poll(open, opened, timeout_ms) < 0 && errno != EINTR;
    if (failed) {
        nanosleep(&(struct timespec){.tv_nsec = retry_ms * 1000000L}, NULL);
    }
    for (nfds_t i = count; i-- > 0;) {
        if (ends[i].fd >= 0) {
            ends[i].revents = failed ? ends[i].events : open[--opened].revents;
        }
    }
}
