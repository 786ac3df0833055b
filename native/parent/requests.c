#include "parent/requests.h"
#include "parent/spawn.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

void mb_receive(int socket, struct mb_received *message) {
    static union {
        struct cmsghdr align;
        char space[CMSG_SPACE(MB_DESCRIPTORS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {message->data, sizeof message->data};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    do {
        message->length = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    } while (message->length < 0 && errno == EINTR);
    message->fd_count = 0;
    struct cmsghdr *rights = message->length > 0 ? CMSG_FIRSTHDR(&header) : NULL;
    if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        message->fd_count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(message->fds, CMSG_DATA(rights), message->fd_count * sizeof(int));
    }
    if (message->length < 0) {
        message->length = -errno;
    } else if (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        message->length = -EMSGSIZE;
    }
}

uint32_t mb_kind(const struct mb_received *message) {
    uint32_t kind = 0;
    if (message->length >= (ssize_t)sizeof kind) {
        memcpy(&kind, message->data, sizeof kind);
    }
    return kind;
}

void mb_close_received(const struct mb_received *message) {
    for (size_t i = 0; i < message->fd_count; i++) {
        close(message->fds[i]);
    }
}

int mb_answer(int socket, const void *data, size_t size, int fd) {
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof fd)];
    } control;
    struct iovec iov = {(void *)(uintptr_t)data, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Fill the slots of a request; returns 0, or -EPROTO if it contradicts itself. */
static int fill_slots(const struct mb_spawn_request *request, size_t length, const int *fds, size_t fd_count,
                      int slots[MB_SLOTS]) {
    if (length < sizeof *request || request->slot_count > MB_SLOTS ||
        length != sizeof *request + request->slot_count * sizeof request->slot[0] || fd_count < 1 + request->cgroup) {
        return -EPROTO;
    }
    for (uint32_t i = 0; i < request->slot_count; i++) {
        if (request->slot[i] >= (int)fd_count) {
            return -EPROTO;
        }
        slots[i] = request->slot[i] < 0 ? -1 : fds[request->slot[i]];
    }
    return 0;
}

static int has_sibling(const struct mb_plan *plan) {
    for (uint32_t i = 0; i < plan->op_count; i++) {
        if (plan->ops[i].code == MB_OP_clone_sibling) {
            return 1;
        }
    }
    return 0;
}

/* Run the plan in `shared`, a view of the request's memory file. */
static pid_t run(const struct mb_spawn_request *request, char *shared, size_t size, const int *slots, int cgroup_fd,
                 struct mb_spawned *made) {
    size_t record_size = sizeof(struct mb_record) + request->op_count * sizeof(struct mb_time);
    if (request->plan_offset > size || request->plan_size > size - request->plan_offset ||
        record_size > request->plan_offset) {
        return -EPROTO;
    }
    struct mb_plan plan;
    uint32_t bad_op;
    int error = mb_plan_load(shared + request->plan_offset, request->plan_size, &plan, &bad_op);
    if (error || plan.op_count != request->op_count) {
        return error ? error : -EPROTO;
    }
    made->replaced = has_sibling(&plan);
    return mb_spawn(&plan, request->flags, cgroup_fd, slots, request->slot_count, (struct mb_record *)(void *)shared,
                    &made->pidfd);
}

struct mb_spawned mb_spawn_requested(const struct mb_received *message, size_t skipped) {
    const struct mb_spawn_request *request = (const void *)message->data;
    struct mb_spawned made = {.pid = -EPROTO, .pidfd = -1};
    int slots[MB_SLOTS];
    if (message->length < 0 || message->fd_count < skipped) {
        return made;
    }
    const int *fds = message->fds + skipped;
    size_t fd_count = message->fd_count - skipped;
    made.pid = fill_slots(request, (size_t)message->length, fds, fd_count, slots);
    struct stat memory;
    if (made.pid || fstat(fds[0], &memory)) {
        made.pid = made.pid ? made.pid : -errno;
        return made;
    }
    size_t size = (size_t)memory.st_size;
    char *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
    if (shared == MAP_FAILED) {
        made.pid = -errno;
        return made;
    }
    made.pid = run(request, shared, size, slots, request->cgroup ? fds[1] : -1, &made);
    munmap(shared, size); /* the child has its own view of it */
    return made;
}
