/* The launcher: one loop over descriptors, no threads, no allocation. See launcher.h. */
#include "parent/launcher.h"
#include "parent/begin.h"
#include "parent/requests.h"
#include "parent/supervisor_exit.h"
#include "syscalls.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { CONTROL = 0, OWNER = 1, CONTAINERS_MAX = 4096 };

struct container {
    int used, counts;
    int connection; /* -1 once closed */
    int pidfd;      /* of the first process, -1 once reaped */
    int helper;     /* of its helper, likewise */
    int replaced;   /* the process ends, and another takes its place */
    int let_go;
};

static struct container containers[CONTAINERS_MAX];
static struct container *end_of_used = containers;
static unsigned counted; /* containers that we stay for */
static int events = -1;
static int control_open = 1;
static int stray; /* there may be a sibling that nobody has told us about */

enum { STRAY_MS = 20 };

/* The source of an event: a descriptor of a container, or one of our own. */
enum about { CONNECTION, PROCESS, HELPER, OWN };

static int watch(int fd, enum about about, const struct container *container) {
    uint64_t index = container ? (uint64_t)(container - containers) : (uint64_t)fd;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = index << 2 | about};
    return epoll_ctl(events, EPOLL_CTL_ADD, fd, &event);
}

/* Close a watched descriptor and stop watching it, since minibox may hold a copy. */
static void forget(int *fd) {
    if (*fd >= 0) {
        epoll_ctl(events, EPOLL_CTL_DEL, *fd, NULL);
        close(*fd);
        *fd = -1;
    }
}

static void signal_to(int pidfd, int number) {
    if (pidfd >= 0) {
        mb_pidfd_send_signal(pidfd, number);
    }
}

/* The raw call, because the C library's has no usage. Returns 0 once the process has ended and was reaped; if
 * another process reaped it, nobody knows how it ended. */
static int reap(int pidfd, siginfo_t *how, struct rusage *usage, int flags) {
    how->si_pid = 0;
    if (!syscall(SYS_waitid, P_PIDFD, pidfd, how, WEXITED | flags, usage)) {
        return !how->si_pid;
    }
    how->si_code = CLD_KILLED;
    how->si_status = SIGKILL;
    return errno != ECHILD;
}

static uint64_t microseconds(struct timeval time) { return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec; }

/* A container that was let go keeps nobody waiting, and is reaped as long as we run. */
static void release(struct container *container) {
    if (container->connection >= 0) {
        return;
    }
    int ended = container->pidfd < 0 && container->helper < 0;
    if (container->counts && (ended || container->let_go)) {
        container->counts = 0;
        counted--;
    }
    container->used = !ended;
}

static void process_ended(struct container *container) {
    siginfo_t how;
    struct rusage usage = {0};
    int relayed = reap(container->pidfd, &how, NULL, WNOHANG | WNOWAIT) ? 0 : mb_exit_relayed(&how);
    if (reap(container->pidfd, &how, &usage, WNOHANG)) {
        return;
    }
    forget(&container->pidfd);
    if (container->replaced && how.si_code == CLD_EXITED && how.si_status == 0 && container->connection >= 0) {
        return; /* as expected: minibox will tell us which process continues */
    }
    struct mb_ended ended = {
        .relayed = (uint32_t)relayed,
        .status = how.si_code == CLD_EXITED ? how.si_status << 8 : how.si_status,
        .cpu_us = microseconds(usage.ru_utime) + microseconds(usage.ru_stime),
        .max_rss_kib = (uint64_t)usage.ru_maxrss,
    };
    signal_to(container->helper, SIGTERM);
    if (container->connection >= 0) {
        mb_answer(container->connection, &ended, sizeof ended, -1);
    }
    release(container);
}

static void helper_ended(struct container *container) {
    if (!reap(container->helper, &(siginfo_t){0}, NULL, WNOHANG)) {
        forget(&container->helper);
        release(container);
    }
}

static void close_connection(struct container *container) {
    forget(&container->connection);
    stray |= container->replaced;
    if (!container->let_go) {
        signal_to(container->pidfd, SIGKILL);
        signal_to(container->helper, SIGTERM);
    }
    release(container);
}

/* Make a process, and answer; its pidfd goes to `place`. */
static void spawn(struct container *container, const struct mb_received *message, size_t skipped, int *place,
                  enum about about) {
    struct mb_spawned made = mb_spawn_requested(message, skipped);
    int32_t number = made.pid;
    if (made.pid > 0 && watch(made.pidfd, about, container)) {
        number = -errno;
        signal_to(made.pidfd, SIGKILL);
        reap(made.pidfd, &(siginfo_t){0}, NULL, 0);
        close(made.pidfd);
    } else if (made.pid > 0) {
        *place = made.pidfd;
        container->replaced |= made.replaced;
    }
    mb_answer(container->connection, &number, sizeof number, *place);
}

/* Watch the process that minibox names instead of the one that has ended or is about to. */
static void go_on_as(struct container *container, int pidfd) {
    if (container->pidfd >= 0) {
        reap(container->pidfd, &(siginfo_t){0}, NULL, 0);
        forget(&container->pidfd);
    }
    container->replaced = 0;
    container->pidfd = pidfd;
    watch(pidfd, PROCESS, container);
}

static void serve_connection(struct container *container) {
    static struct mb_received message;
    mb_receive(container->connection, &message);
    uint32_t kind = mb_kind(&message);
    if (kind == MB_SPAWN_HELPER && container->pidfd >= 0 && container->helper < 0) {
        spawn(container, &message, 0, &container->helper, HELPER);
    } else if (kind == MB_GOES_ON_AS && container->replaced && message.fd_count == 1) {
        go_on_as(container, message.fds[0]);
        message.fd_count = 0;
    } else if (kind == MB_LET_GO) {
        container->let_go = 1;
        mb_answer(container->connection, &(int32_t){0}, sizeof(int32_t), -1);
    } else {
        close_connection(container); /* closed at the other end, or an unknown request */
    }
    mb_close_received(&message);
}

static struct container *unused(void) {
    for (struct container *each = containers; each < containers + CONTAINERS_MAX; each++) {
        if (!each->used) {
            return each;
        }
    }
    return NULL;
}

/* Returns 0 when everything is to end. */
static int serve_control(void) {
    static struct mb_received message;
    mb_receive(CONTROL, &message);
    if (message.length == 0) {
        epoll_ctl(events, EPOLL_CTL_DEL, CONTROL, NULL);
        control_open = 0;
        return 1;
    }
    if (mb_kind(&message) == MB_END) {
        return 0;
    }
    struct container *container = unused();
    if (mb_kind(&message) != MB_SPAWN || !message.fd_count || !container ||
        watch(message.fds[0], CONNECTION, container)) {
        mb_close_received(&message); /* this closes the connection, which its other end notices */
        return 1;
    }
    *container = (struct container){.used = 1, .counts = 1, .connection = message.fds[0], .pidfd = -1, .helper = -1};
    counted++;
    end_of_used = container < end_of_used ? end_of_used : container + 1;
    spawn(container, &message, 1, &container->pidfd, PROCESS);
    for (size_t i = 1; i < message.fd_count; i++) {
        close(message.fds[i]);
    }
    return 1;
}

static void kill_all(void) {
    for (struct container *each = containers; each < end_of_used; each++) {
        if (each->used && !each->let_go) {
            signal_to(each->pidfd, SIGKILL);
            signal_to(each->helper, SIGTERM);
        }
    }
}

static int has_ended(int pidfd) {
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    return pidfd >= 0 && poll(&ended, 1, 0) == 1;
}

/* Reap siblings that minibox would have told us about if its connection hadn't closed, for example by Ctrl-C: as
 * long as one isn't reaped, the first process of its pid namespace can't end. A child that has ended and that we
 * don't know is such a sibling, unless minibox is still going to tell us about it. */
static void reap_strays(void) {
    for (struct container *each = containers; each < end_of_used; each++) {
        if (each->used && each->replaced && each->connection >= 0) {
            return; /* its sibling may have ended already */
        }
    }
    siginfo_t how = {0};
    while (!waitid(P_ALL, 0, &how, WEXITED | WNOHANG | WNOWAIT) && how.si_pid) {
        for (struct container *each = containers; each < end_of_used; each++) {
            if (each->used && (has_ended(each->pidfd) || has_ended(each->helper))) {
                return; /* serve that first */
            }
        }
        waitid(P_PID, (id_t)how.si_pid, &how, WEXITED | WNOHANG);
        how.si_pid = 0;
    }
}

/* Handle one event at a time, because it may make the next one obsolete. */
static void serve(void) {
    while (control_open || counted) {
        struct epoll_event event;
        if (epoll_wait(events, &event, 1, stray ? STRAY_MS : -1) != 1) {
            reap_strays();
            continue;
        }
        struct container *container = &containers[event.data.u64 >> 2];
        switch ((enum about)(event.data.u64 & 3)) {
        case CONNECTION:
            serve_connection(container);
            break;
        case PROCESS:
            process_ended(container);
            break;
        case HELPER:
            helper_ended(container);
            break;
        case OWN:
            if (event.data.u64 >> 2 == OWNER || !serve_control()) {
                kill_all();
                return;
            }
        }
    }
}

int mb_launcher(void) {
    /* A container's set-up takes its standard streams from slots. */
    if (mb_begin(2) || fcntl(CONTROL, F_SETFD, FD_CLOEXEC) || fcntl(OWNER, F_SETFD, FD_CLOEXEC)) {
        return 1;
    }
    events = epoll_create1(EPOLL_CLOEXEC);
    if (events < 0 || watch(CONTROL, OWN, NULL) || watch(OWNER, OWN, NULL)) {
        return 1;
    }
    serve();
    return 0;
}
