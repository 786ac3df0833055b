/* The launcher of a Python process: the parent of the containers that it runs in the foreground.
 *
 * Started by minibox, small and with one thread, so that a start costs the same from an interpreter of any size and
 * from any of its threads; and so that no container descends from the interpreter or could reach its executable.
 * Descriptor 0 is a SOCK_SEQPACKET socket, 1 a pidfd of the process that owns it all.
 *
 * On the socket comes MB_SPAWN for each container, with the other end of a connection of the container's own before
 * its other descriptors. The rest goes over the connection: the answer, MB_SPAWN_HELPER, MB_GOES_ON_AS, MB_LET_GO,
 * and in the end `mb_ended`. A connection that closes before that ends its container: with SIGKILL by the launcher's
 * own hand, whatever ids the container has taken. The launcher ends when the socket is closed and no container is left,
 * or at once, with all of them, by MB_END and when the owner has ended: a child of the owner's may hold copies of its
 * descriptors.
 *
 * MB_GOES_ON_AS brings the pidfd of the process that takes the first one's place, as operation clone_sibling says.
 * MB_LET_GO, answered by an int32: the container stays when the connection closes, and is nobody's. */
#ifndef MB_LAUNCHER_H
#define MB_LAUNCHER_H

#include <stdint.h>

/* A container's first process has ended, and was reaped. */
struct mb_ended {
    int32_t status;       /* as of wait(2) */
    uint32_t relayed;     /* see mb_exit_relayed */
    uint64_t cpu_us;      /* of it and of all that it has reaped, by getrusage(2) */
    uint64_t max_rss_kib; /* of the largest of these */
};

int mb_launcher(void);

#endif
