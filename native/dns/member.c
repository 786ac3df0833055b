/* The keeper of a member's sockets: a process that ends with its container. It registers at the name server, and if
 * that is gone, at the one that it or another member starts. It never reads what a container sends.
 *
 *     minibox-member DIRECTORY DETACHED REGISTRATION...
 *
 * Descriptor 0 is the UDP socket, 1 the listening TCP socket, 2 this executable, 3 a pidfd of the container's first
 * process. If DETACHED is 1, it goes on in a child that is nobody's. In DIRECTORY are the server's socket and the
 * directory `tables`; the lock on it is the server's. */
#include "dns/server.h"
#include "parent/begin.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { UDP = 0, TCP = 1, CONTAINER = 3, RETRY_MS = 5, RETRY_MAX_MS = 200, LONG_S = 2 };

static char place[PATH_MAX];
static char *shown; /* the command line that ps(1) shows */
static size_t shown_size;

/* Wait until the descriptor is ready, or for some time; when the container has ended, so do we. */
static void wait_for(int fd, int timeout_ms) {
    struct pollfd ends[] = {{.fd = CONTAINER, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    poll(ends, 2, timeout_ms);
    if (ends[0].revents) {
        _exit(0);
    }
}

/* The address by the directory's descriptor, because its path may be longer than an address. */
static struct sockaddr_un address_in(int directory, const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", directory, name);
    return address;
}

static int connect_to(int directory) {
    struct sockaddr_un address = address_in(directory, "socket");
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)(void *)&address, sizeof address)) {
        close(fd);
        return -1;
    }
    return fd;
}

static int listen_in(int directory) {
    char name[32];
    snprintf(name, sizeof name, ".socket.%d", (int)getpid());
    struct sockaddr_un address = address_in(directory, name);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlinkat(directory, name, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)(void *)&address, sizeof address) || listen(fd, SOMAXCONN) ||
        renameat(directory, name, directory, "socket")) {
        unlinkat(directory, name, 0);
        close(fd);
        return -1;
    }
    return fd;
}

/* In the child: become the server, which is nobody's child. */
static _Noreturn void become_server(int directory, int listener, int first, int tables) {
    if (fork()) {
        _exit(0);
    }
    setsid();
    prctl(PR_SET_NAME, "minibox-dns", 0, 0, 0);
    memset(shown, 0, shown_size);
    snprintf(shown, shown_size, "minibox-dns");
    /* 4 is the lock, held for as long as we live. What is ours as a member is not the server's. */
    int fds[] = {directory, listener, first, tables};
    for (int i = 0; i < 4; i++) {
        fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 64);
    }
    for (int i = 0; i < 4; i++) {
        dup3(fds[i], 4 + i, O_CLOEXEC);
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, UDP);
    dup2(null, TCP);
    dup2(null, CONTAINER);
    close_range(8, ~0u, 0);
    mb_dns_serve(5, 6, 7);
}

/* Start the server and return a connection to it; -1 if another process is about to, or it can't be done. */
static int start_server(int directory) {
    if (flock(directory, LOCK_EX | LOCK_NB)) {
        return -1;
    }
    int pair[2] = {-1, -1}, tables = openat(directory, "tables", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int listener = tables < 0 ? -1 : listen_in(directory);
    if (listener >= 0 && !socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
        pid_t child = fork();
        if (child == 0) {
            become_server(directory, listener, pair[1], tables);
        }
        close(pair[1]);
        if (child < 0) {
            close(pair[0]);
            pair[0] = -1;
        }
    }
    close(listener);
    close(tables);
    return pair[0];
}

static int register_at(int server, const char *text, size_t size) {
    const int fds[] = {UDP, TCP};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof fds)];
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)text, size};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fds)};
    memcpy(CMSG_DATA(header), fds, sizeof fds);
    return sendmsg(server, &message, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

/* Return a connection to the server, or to the one that we have started; -1 if there is none yet. */
static int find_server(void) {
    int directory = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) { /* removed with the last member */
        return -1;
    }
    int server = connect_to(directory);
    if (server < 0) {
        server = start_server(directory);
    }
    close(directory);
    return server;
}

static _Noreturn void keep(const char *text, size_t size) {
    int pause_ms = RETRY_MS;
    for (;;) {
        time_t begin = time(NULL);
        int server = find_server();
        if (server >= 0 && !register_at(server, text, size)) {
            wait_for(server, -1); /* it never says anything, so it has ended */
        }
        if (server >= 0) {
            close(server);
        }
        /* Not at once: one that ends again and again must not be started all the time. */
        pause_ms = time(NULL) - begin >= LONG_S ? RETRY_MS : pause_ms;
        wait_for(-1, pause_ms);
        pause_ms = pause_ms * 2 < RETRY_MAX_MS ? pause_ms * 2 : RETRY_MAX_MS;
    }
}

int mb_dns_member(int argc, char **argv) {
    static char text[MB_DNS_REGISTRATION_MAX];
    if (argc < 4) {
        return 1;
    }
    if (!strcmp(argv[2], "1") && fork()) {
        _exit(0);
    }
    if (mb_begin(4)) {
        return 1;
    }
    /* Nobody reaps the children that we make, and SIGTERM ends us. */
    signal(SIGCHLD, SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    snprintf(place, sizeof place, "%s", argv[1]);
    size_t size = 0;
    for (int i = 3; i < argc; i++) {
        size_t length = strlen(argv[i]) + 1;
        if (length > sizeof text - size) {
            break;
        }
        memcpy(text + size, argv[i], length);
        size += length;
    }
    shown = argv[0];
    shown_size = (size_t)(argv[argc - 1] + strlen(argv[argc - 1]) + 1 - shown);
    keep(text, size);
}
