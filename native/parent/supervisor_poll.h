#ifndef MB_SUPERVISOR_POLL_H
#define MB_SUPERVISOR_POLL_H

#include <poll.h>

enum { MB_POLL_MAX = 64 };

/* poll(2) takes no more entries than a process may have descriptors (RLIMIT_NOFILE), so leave out the empty ones.
 * If there are still too many, report those that can't be watched as ready after `retry_ms`, so reading and writing
 * must not block. No more than MB_POLL_MAX. */
void mb_poll(struct pollfd *ends, nfds_t count, int retry_ms, int timeout_ms);

#endif
