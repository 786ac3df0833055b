/* The launcher of a Python process: the parent of the containers that it runs in the foreground.
 *
 * It is small and has one thread, so a start costs the same from a large interpreter and from any of its threads.
 * And no container descends from the interpreter or can reach its executable. Descriptor 0 is a SOCK_SEQPACKET
 * socket, 1 a pidfd of the process that owns it all.
 *
 * For each container, MB_SPAWN arrives on the socket; its first descriptor is the other end of a connection for
 * that container. The rest goes over the connection: the answer, MB_SPAWN_HELPER, MB_GOES_ON_AS, MB_LET_GO, and
 * finally `mb_ended`. If a connection closes before that, the launcher kills its container with SIGKILL, whatever
 * ids the container has taken. The launcher ends when the socket is closed and no container is left. On MB_END, and
 * when the owner has ended, it ends at once with all containers: a child of the owner may hold copies of the
 * owner's descriptors.
 *
 * MB_GOES_ON_AS brings the pidfd of the process that replaces the first one, see operation clone_sibling.
 * MB_LET_GO, answered by an int32: the container stays when the connection closes, and belongs to nobody. */
#ifndef MB_LAUNCHER_H
#define MB_LAUNCHER_H

#include <stdint.h>

/* A container's first process has ended and was reaped. */
struct mb_ended {
    int32_t status;       /* as of wait(2) */
    uint32_t relayed;     /* see mb_exit_relayed */
    uint64_t cpu_us;      /* of it and of all that it has reaped, from getrusage(2) */
    uint64_t max_rss_kib; /* of the largest of these */
};

int mb_launcher(void);

#endif
