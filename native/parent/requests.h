/* Requests of minibox to the processes that make containers for it: the supervisor and the launcher.
 *
 * Each message on the SOCK_SEQPACKET socket carries the descriptors that it refers to. Numbers are in host byte
 * order: they never leave the machine. */
#ifndef MB_REQUESTS_H
#define MB_REQUESTS_H

#include "plan.h"

#include <stdint.h>
#include <sys/types.h>

/* The first number of each message. */
enum mb_request {
    MB_SPAWN = 1,        /* make the container's first process */
    MB_SUPERVISE = 2,    /* see supervisor.h */
    MB_SPAWN_HELPER = 3, /* make a process that gets SIGTERM when that one has ended, such as a network program */
    MB_GOES_ON_AS = 4,   /* see launcher.h, like the next ones */
    MB_LET_GO = 5,
    MB_END = 6,
    MB_HOLD = 7, /* see supervisor.h */
};

/* MB_SPAWN and MB_SPAWN_HELPER. The first descriptor is a memory file with the record and, at plan_offset, the
 * plan. Then come the cgroup's directory, if cgroup is 1, and the descriptors for the slots. Answered by an int32:
 * the pid, with its pidfd; or -errno. */
struct mb_spawn_request {
    uint32_t kind;
    uint32_t op_count;
    uint64_t flags; /* for clone3 */
    uint32_t plan_offset;
    uint32_t plan_size;
    uint32_t cgroup;     /* 1: the second descriptor is its directory */
    uint32_t slot_count; /* the number of slots */
    int16_t slot[];      /* index of a descriptor in this message, or -1 */
};

enum {
    MB_DESCRIPTORS_MAX = 253, /* that one message carries, SCM_MAX_FD */
    MB_REQUEST_MAX = 32768,
};

/* A message and its descriptors, which belong to the receiver. */
struct mb_received {
    ssize_t length; /* 0 at the end, or -errno */
    size_t fd_count;
    int fds[MB_DESCRIPTORS_MAX];
    _Alignas(8) char data[MB_REQUEST_MAX];
};

void mb_receive(int socket, struct mb_received *message);

/* The first number of a message; 0 if it is empty. */
uint32_t mb_kind(const struct mb_received *message);

void mb_close_received(const struct mb_received *message);

/* Send `size` bytes, and a descriptor unless it is -1; returns 0 or -errno. */
int mb_answer(int socket, const void *data, size_t size, int fd);

/* A process that was made. */
struct mb_spawned {
    pid_t pid;    /* or -errno */
    int pidfd;    /* or -1 */
    int replaced; /* its plan ends it, and a sibling continues */
};

/* Do what a message asks for; skip its first `skipped` descriptors. */
struct mb_spawned mb_spawn_requested(const struct mb_received *message, size_t skipped);

#endif
