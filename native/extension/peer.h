/* What this process gets from the kernel, and from the processes that make others for it.
 *
 * An exception from a signal handler may interrupt an interpreter between any two of its instructions, and what a
 * system call has just returned is lost then. So each of these functions writes its result into a struct that the
 * caller already has, and that frees it in the end. */
#ifndef MB_PEER_H
#define MB_PEER_H

#include "parent/spawn.h"

#include <stdint.h>

/* Close a descriptor unless it is -1; it is -1 afterwards. */
void mb_fd_close(int *fd);

/* Close what is in `to`, and open a copy of `fd` there, close-on-exec. Returns 0 or -errno. */
int mb_fd_copy(int fd, int *to);

/* Close what is in `to`, and move `from` there. */
void mb_fd_move(int *from, int *to);

/* A record in memory shared with other processes. */
struct mb_view {
    struct mb_record *record; /* NULL when there is none */
    uint32_t size;
    int memory_fd; /* -1 when there is none */
};

/* Make one of `size` bytes, in a memory file if others are to map it. Returns 0 or -errno. */
int mb_view_make(struct mb_view *view, uint32_t size, int in_file);
void mb_view_free(struct mb_view *view);

/* A started program. */
struct mb_program {
    int pid; /* 0 before */
    int pidfd;
};

/* Start a program in a session of its own, with descriptors 0 to fd_count-1; posix_spawn(3). Returns 0 or -errno. */
int mb_program_start(struct mb_program *program, const char *path, char *const *argv, char *const *envp, const int *fds,
                     unsigned fd_count);
void mb_program_free(struct mb_program *program); /* only the pidfd: the program keeps running */

/* A message from a peer, and its descriptor. */
struct mb_delivery {
    int length; /* 0: there is none */
    int fd;     /* or -1 */
    char data[64];
};

enum { MB_PEER_DEAD = -2 };

/* Wait for a message of the peer with the pidfd `peer`: if others hold the socket too, it doesn't show the peer's
 * death. Returns 0, -EINTR, -ECONNRESET if the peer has died and no message is left, or another -errno. */
int mb_delivery_take(struct mb_delivery *message, int socket, int peer);
void mb_delivery_free(struct mb_delivery *message);

#endif
