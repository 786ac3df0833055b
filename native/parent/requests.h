/* What minibox asks of the processes that make containers for it, the supervisor and the launcher.
 *
 * Messages go over a SOCK_SEQPACKET socket, each with the descriptors that it speaks of. Numbers are in host byte
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
    MB_SPAWN_HELPER = 3, /* make one that is sent SIGTERM when that has ended, such as a network program */
    MB_GOES_ON_AS = 4,   /* see launcher.h, as for the next */
    MB_LET_GO = 5,
    MB_END = 6,
    MB_HOLD = 7, /* see supervisor.h */
};

/* MB_SPAWN and MB_SPAWN_HELPER. The first descriptor is a memory file that holds the record and, at plan_offset, the
 * plan; the others are the cgroup's directory if cgroup is 1, and then those that fill the slots.
 * Answered by an int32: the pid, with its pidfd; or -errno. */
struct mb_spawn_request {
    uint32_t kind;
    uint32_t op_count;
    uint64_t flags; /* clone3's */
    uint32_t plan_offset;
    uint32_t plan_size;
    uint32_t cgroup;     /* 1: the second descriptor is its directory */
    uint32_t slot_count; /* that many slots follow */
    int16_t slot[];      /* index of a descriptor in this message, or -1 */
};

enum {
    MB_DESCRIPTORS_MAX = 253, /* that one message carries, SCM_MAX_FD */
    MB_REQUEST_MAX = 32768,
};

/* A message and its descriptors, which belong to who received it. */
struct mb_received {
    ssize_t length; /* 0 at the end, or -errno */
    size_t fd_count;
    int fds[MB_DESCRIPTORS_MAX];
    _Alignas(8) char data[MB_REQUEST_MAX];
};

void mb_receive(int socket, struct mb_received *message);

/* The first number of a message; 0 when it has none. */
uint32_t mb_kind(const struct mb_received *message);

void mb_close_received(const struct mb_received *message);

/* Send `size` bytes, and a descriptor unless it is -1; 0, or -errno. */
int mb_answer(int socket, const void *data, size_t size, int fd);

/* What to know of a process that was made. */
struct mb_spawned {
    pid_t pid;    /* or -errno */
    int pidfd;    /* or -1 */
    int replaced; /* its plan has it end, and a sibling go on */
};

/* Do what a message asks for; its first `skipped` descriptors are of no concern. */
struct mb_spawned mb_spawn_requested(const struct mb_received *message, size_t skipped);

#endif
