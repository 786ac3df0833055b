/* What this process gets of the kernel, and of the processes that make others for it.
 *
 * An interpreter that calls system calls through us may be cut short between any two of its instructions, by an
 * exception out of a signal handler: what it had only just got is lost then. So each of these writes what it gets into
 * a struct of the caller's, which is there before the call, and whose end frees it. */
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

/* A record in memory that other processes see too. */
struct mb_view {
    struct mb_record *record; /* NULL when there is none */
    uint32_t size;
    int memory_fd; /* -1 when there is none */
};

/* One of `size` bytes; in a memory file if others shall map it. Returns 0 or -errno. */
int mb_view_make(struct mb_view *view, uint32_t size, int in_file);
void mb_view_free(struct mb_view *view);

/* A program that was started. */
struct mb_program {
    int pid; /* 0 before */
    int pidfd;
};

/* Start a program in a session of its own, with descriptors 0 to fd_count-1; posix_spawn(3). Returns 0 or -errno. */
int mb_program_start(struct mb_program *program, const char *path, char *const *argv, char *const *envp, const int *fds,
                     unsigned fd_count);
void mb_program_free(struct mb_program *program); /* the pidfd: it runs on */

/* A message that a peer has sent, and its descriptor. */
struct mb_delivery {
    int length; /* 0: there is none */
    int fd;     /* or -1 */
    char data[64];
};

enum { MB_PEER_DEAD = -2 };

/* Wait for a message of a peer's, whose pidfd is `peer`: a socket that others hold as well doesn't tell of its death.
 * Returns 0, -EINTR, -ECONNRESET when it has died and there is no more, or another -errno. */
int mb_delivery_take(struct mb_delivery *message, int socket, int peer);
void mb_delivery_free(struct mb_delivery *message);

#endif
