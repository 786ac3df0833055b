#include "extension/peer.h"
#include "syscalls.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

void mb_fd_close(int *fd) {
    int closed = *fd;
    *fd = -1;
    if (closed >= 0) {
        close(closed);
    }
}

int mb_fd_copy(int fd, int *to) {
    mb_fd_close(to);
    *to = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return *to < 0 ? -errno : 0;
}

void mb_fd_move(int *from, int *to) {
    mb_fd_close(to);
    *to = *from;
    *from = -1;
}

int mb_view_make(struct mb_view *view, uint32_t size, int in_file) {
    if (in_file) {
        view->memory_fd = memfd_create("minibox-plan", MFD_CLOEXEC);
        if (view->memory_fd < 0 || ftruncate(view->memory_fd, size)) {
            return -errno;
        }
    }
    int flags = MAP_SHARED | (in_file ? 0 : MAP_ANONYMOUS);
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, view->memory_fd, 0);
    if (memory == MAP_FAILED) {
        return -errno;
    }
    view->record = memory;
    view->size = size;
    return 0;
}

void mb_view_free(struct mb_view *view) {
    mb_fd_close(&view->memory_fd);
    if (view->record) {
        munmap(view->record, view->size);
        view->record = NULL;
    }
}

int mb_program_start(struct mb_program *program, const char *path, char *const *argv, char *const *envp, const int *fds,
                     unsigned fd_count) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&actions);
    if (error) {
        return -error;
    }
    error = posix_spawnattr_init(&attributes);
    if (!error) {
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
        for (unsigned i = 0; i < fd_count && !error; i++) {
            error = posix_spawn_file_actions_adddup2(&actions, fds[i], (int)i);
        }
        pid_t pid = 0;
        error = error ? error : posix_spawn(&pid, path, &actions, &attributes, argv, envp);
        if (!error) {
            program->pid = pid;
            program->pidfd = mb_pidfd_open(pid, 0);
            error = program->pidfd < 0 ? errno : 0;
        }
        if (program->pid && error) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            program->pid = 0;
        }
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return -error;
}

void mb_program_free(struct mb_program *program) { mb_fd_close(&program->pidfd); }

/* Receive the message if there is one; returns 0 or -errno. */
static int receive(struct mb_delivery *message, int socket) {
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {message->data, sizeof message->data};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t length = recvmsg(socket, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (length <= 0) {
        return length ? -errno : -ECONNRESET;
    }
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        memcpy(&message->fd, CMSG_DATA(rights), sizeof message->fd);
    }
    message->length = (int)length;
    return 0;
}

int mb_delivery_take(struct mb_delivery *message, int socket, int peer) {
    mb_delivery_free(message);
    for (;;) {
        struct pollfd ends[] = {{.fd = socket, .events = POLLIN}, {.fd = peer, .events = POLLIN}};
        if (poll(ends, 2, peer == MB_PEER_DEAD ? 0 : -1) < 0) {
            return -errno;
        }
        int error = receive(message, socket); /* before its end counts: it may have sent this earlier */
        if (error != -EAGAIN) {
            return error;
        }
        if (ends[1].revents || peer == MB_PEER_DEAD) {
            return -ECONNRESET;
        }
    }
}

void mb_delivery_free(struct mb_delivery *message) {
    message->length = 0;
    mb_fd_close(&message->fd);
}
