#ifndef MB_SUPERVISOR_POLL_H
#define MB_SUPERVISOR_POLL_H

#include <poll.h>

enum { MB_POLL_MAX = 64 };

/* poll(2), which takes no more entries than a process may have descriptors (RLIMIT_NOFILE), so that the empty ones are
 * left out. What can't be watched even so is told after `retry_ms` as if all had happened: reading and writing what is
 * watched must not block. No more than MB_POLL_MAX. */
void mb_poll(struct pollfd *ends, nfds_t count, int retry_ms, int timeout_ms);

#endif
