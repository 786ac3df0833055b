/* The supervisor: one loop over descriptors, no threads, no allocation. See supervisor.h. */
#include "parent/supervisor.h"
#include "parent/begin.h"
#include "parent/end.h"
#include "parent/supervisor_exit.h"
#include "parent/supervisor_health.h"
#include "parent/supervisor_log.h"
#include "parent/supervisor_poll.h"
#include "parent/supervisor_request.h"
#include "syscalls.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

enum {
    CONTROL = 0, /* the descriptor of the socket to minibox */
    CLAIM = 3,   /* the descriptor of the lock on the container, at the end */
    CLIENTS_MAX = 16,
    CHUNK = 8192,
    SLOW_CLIENT_MS = 5000,
    RETRY_MS = 200,
};

/* Output of the container on its way to the log and the clients. The next chunk is read when all have this one, so
 * a slow reader slows the container down, as a full pipe would. */
struct output {
    int fd;
    char packet;      /* MB_CLIENT_OUTPUT or MB_CLIENT_ERROR */
    uint32_t waiting; /* a bit for each client that still needs the chunk */
    int64_t since_ms;
    size_t length, logged;
    char chunk[CHUNK];
    struct mb_log_line line;
};

struct supervisor {
    pid_t pid;
    int pidfd, helper_pidfd;
    int ended, status, timed_out; /* status as of wait(2) */
    int signals, listener, owned;
    int input; /* the terminal, or a pipe to the container's standard input; -1 when it has ended */
    int terminal;
    int stdin_once;
    struct output output[2];
    int clients[CLIENTS_MAX];
    int input_client; /* the last client that wrote to the container's input, -1: none */
    size_t input_length, input_written;
    char input_chunk[CHUNK + 1];
    struct mb_log log;
    struct mb_exit exit;
    struct mb_health health;
    struct mb_plan end; /* what is done at the end, or else the command `after` */
    char **after;
    int64_t timeout_at_ms, retry_at_ms;
    int64_t accept_at_ms; /* no descriptor was free for a client: try again at this time */
};

static struct supervisor self = {
    .pidfd = -1,
    .helper_pidfd = -1,
    .listener = -1,
    .owned = -1,
    .input = -1,
    .input_client = -1,
    .output = {{.fd = -1, .packet = MB_CLIENT_OUTPUT, .line.stream = "stdout"},
               {.fd = -1, .packet = MB_CLIENT_ERROR, .line.stream = "stderr"}},
    .log.fd = -1,
};

static int64_t now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* ---- requests of minibox -------------------------------------------------------------------- */

/* `message` must stay: paths and commands in it are used later. */
static int supervise(struct mb_received *message) {
    struct mb_supervise_request *request = (void *)message->data;
    struct mb_supervise_texts texts;
    int error = self.pid > 0 ? mb_supervise_texts(message, &texts) : -EPROTO;
    if (error) {
        return error;
    }
    int *places[] = {&self.owned, &self.listener, &self.terminal, &self.input, &self.output[0].fd, &self.output[1].fd};
    self.terminal = -1;
    for (size_t i = 0, next = 0; i < sizeof places / sizeof *places; i++) {
        if (request->descriptors >> i & 1) {
            *places[i] = message->fds[next++];
        }
    }
    if (self.terminal >= 0) {
        self.input = self.output[0].fd = self.terminal;
        /* Hold the slave open, or the terminal would end when the container closes its last one. */
        ioctl(self.terminal, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    }
    const int ends[] = {self.output[0].fd, self.output[1].fd, self.input, self.listener};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        int fd = ends[i];
        if (fd >= 0 && fcntl(fd, F_SETFL, O_NONBLOCK)) {
            return -errno;
        }
    }
    self.exit.path = texts.exit_path;
    self.end = texts.end;
    self.after = texts.after;
    self.health.command = texts.health;
    self.stdin_once = (int)request->stdin_once;
    int64_t now = now_ms();
    self.timeout_at_ms = request->timeout_ms ? now + request->timeout_ms : INT64_MAX;
    self.health.interval_ms = request->health_interval_ms;
    self.health.start_interval_ms = request->health_start_interval_ms;
    mb_health_begin(&self.health, now, request->health_start_period_ms);
    self.log.path = request->log_files ? texts.log_path : NULL;
    self.log.files = request->log_files;
    self.log.size_max = request->log_bytes_max;
    error = mb_exit_reserve(&self.exit);
    return error ? error : mb_log_open(&self.log);
}

/* Make the container's first process or its helper, and answer; 0, or -errno. */
static int spawn(const struct mb_received *message, int *pidfd) {
    struct mb_spawned made = {.pid = -EPROTO, .pidfd = -1};
    if (*pidfd < 0) {
        made = mb_spawn_requested(message, 0);
    }
    mb_close_received(message);
    if (made.pid > 0) {
        *pidfd = made.pidfd;
        self.pid = pidfd == &self.pidfd ? made.pid : self.pid;
    }
    int32_t number = made.pid;
    int unheard = mb_answer(CONTROL, &number, sizeof number, made.pidfd);
    return made.pid > 0 ? unheard : made.pid;
}

/* Serve requests until the container is ours to watch; -1 if minibox is gone before that. */
static int serve(void) {
    static struct mb_received message;
    for (;;) {
        mb_receive(CONTROL, &message);
        int32_t error = -EPROTO;
        switch (mb_kind(&message)) {
        case MB_SPAWN:
            error = spawn(&message, &self.pidfd);
            break;
        case MB_SPAWN_HELPER:
            error = spawn(&message, &self.helper_pidfd);
            break;
        case MB_HOLD: /* nothing else to do: an exec closes them */
            error = mb_answer(CONTROL, &(int32_t){0}, sizeof(int32_t), -1);
            break;
        case MB_SUPERVISE:
            error = supervise(&message);
            int unheard = mb_answer(CONTROL, &error, sizeof error, -1);
            if (!error && !unheard) {
                return 0;
            }
        }
        if (error) {
            return -1;
        }
    }
}

/* ---- clients -------------------------------------------------------------------------------- */

/* A client says that its input has ended; a terminal's never does. */
static void end_input(void) {
    if (self.stdin_once && self.terminal < 0 && self.input >= 0) {
        close(self.input);
        self.input = -1;
    }
}

static void drop_client(int index) {
    close(self.clients[index]);
    self.clients[index] = -1;
    for (int i = 0; i < 2; i++) {
        self.output[i].waiting &= ~(1u << index);
    }
    if (self.input_client == index) {
        self.input_client = -1;
        if (!self.input_length) {
            end_input();
        }
    }
}

static void accept_client(void) {
    int fd = accept4(self.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        self.accept_at_ms = now_ms() + RETRY_MS; /* EMFILE, for example: the client stays in the queue */
    }
    /* The socket's directory keeps other users out, unless its mode was changed. */
    struct ucred peer = {.uid = (uid_t)-1};
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &(socklen_t){sizeof(peer)});
    for (int i = 0; fd >= 0 && peer.uid == geteuid() && i < CLIENTS_MAX; i++) {
        if (self.clients[i] < 0) {
            self.clients[i] = fd;
            return;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}

/* Send one packet; returns 0 or -errno. */
static int send_packet(int client, char kind, const void *data, size_t size) {
    struct iovec iov[] = {{&kind, 1}, {(void *)(uintptr_t)data, size}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    return sendmsg(client, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* Write a client's data to the container's input. */
static void write_input(void) {
    while (self.input >= 0 && self.input_written < self.input_length) {
        ssize_t written =
            write(self.input, self.input_chunk + self.input_written, self.input_length - self.input_written);
        if (written < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (written < 0) {
            break; /* it has no reader any more */
        }
        self.input_written += (size_t)written;
    }
    self.input_length = self.input_written = 0;
}

static void read_client(int index) {
    ssize_t length = recv(self.clients[index], self.input_chunk, sizeof self.input_chunk, 0);
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (length <= 0) {
        drop_client(index);
        return;
    }
    uint16_t size[2];
    switch (self.input_chunk[0]) {
    case MB_CLIENT_INPUT:
        self.input_client = index;
        self.input_length = (size_t)length;
        self.input_written = 1;
        write_input();
        break;
    case MB_CLIENT_CLOSE:
        end_input();
        break;
    case MB_CLIENT_SIZE:
        if (self.terminal >= 0 && length == 1 + sizeof size) {
            memcpy(size, self.input_chunk + 1, sizeof size);
            ioctl(self.terminal, TIOCSWINSZ, &(struct winsize){.ws_row = size[0], .ws_col = size[1]});
        }
        break;
    default:
        drop_client(index);
    }
}

/* ---- output --------------------------------------------------------------------------------- */

static int is_done(const struct output *output) { return output->logged == output->length && !output->waiting; }

/* Give the chunk to the log and to the clients that still need it. */
static void distribute(struct output *output) {
    output->logged +=
        mb_log_append(&self.log, &output->line, output->chunk + output->logged, output->length - output->logged);
    if (output->logged < output->length) {
        self.retry_at_ms = now_ms() + RETRY_MS;
    }
    for (int i = 0; i < CLIENTS_MAX; i++) {
        if (!(output->waiting >> i & 1)) {
            continue;
        }
        int error = send_packet(self.clients[i], output->packet, output->chunk, output->length);
        if (!error) {
            output->waiting &= ~(1u << i);
        } else if (error != -EAGAIN || now_ms() - output->since_ms > SLOW_CLIENT_MS) {
            drop_client(i);
        }
    }
}

/* Read the next chunk; 0 once the stream has ended. */
static int read_output(struct output *output) {
    ssize_t length = read(output->fd, output->chunk, sizeof output->chunk);
    if (length < 0 && (errno == EINTR || (errno == EAGAIN && !self.ended))) {
        return 1;
    }
    if (length <= 0) { /* EIO: no process has the terminal open any more */
        return 0;
    }
    output->length = (size_t)length;
    output->logged = 0;
    output->since_ms = now_ms();
    for (int i = 0; i < CLIENTS_MAX; i++) {
        output->waiting |= self.clients[i] >= 0 ? 1u << i : 0;
    }
    distribute(output);
    return 1;
}

static void close_output(struct output *output) {
    if (mb_log_end(&self.log, &output->line)) {
        self.retry_at_ms = now_ms() + RETRY_MS;
        return; /* read again then, it finds the end again */
    }
    if (output->fd != self.terminal) {
        close(output->fd);
    }
    output->fd = -1;
}

/* ---- time and processes --------------------------------------------------------------------- */

static void reap(void) {
    struct signalfd_siginfo information;
    while (read(self.signals, &information, sizeof information) == sizeof information) {
        if (information.ssi_signo != SIGCHLD) {
            mb_pidfd_send_signal(self.pidfd, (int)information.ssi_signo);
        }
    }
    siginfo_t how = {0};
    while (!waitid(P_ALL, 0, &how, WEXITED | WNOHANG | WNOWAIT) && how.si_pid > 0) {
        pid_t pid = how.si_pid;
        int status, relayed = pid == self.pid ? mb_exit_relayed(&how) : 0;
        waitpid(pid, &status, 0);
        how.si_pid = 0;
        if (pid == self.pid) {
            self.exit.relayed = relayed;
            self.ended = self.log.ended = 1;
            self.status = status;
        }
        mb_health_reaped(&self.health, pid, status, now_ms());
    }
}

static int timeout_ms(int64_t now) {
    int64_t next = self.health.next_at_ms < self.timeout_at_ms ? self.health.next_at_ms : self.timeout_at_ms;
    next = self.retry_at_ms < next ? self.retry_at_ms : next;
    next = self.accept_at_ms < next ? self.accept_at_ms : next;
    for (int i = 0; i < 2; i++) {
        int64_t due = self.output[i].line.due_ms;
        next = due && due < next ? due : next;
    }
    return next == INT64_MAX ? -1 : next <= now ? 0 : next - now > INT_MAX ? INT_MAX : (int)(next - now);
}

static void on_time(int64_t now) {
    if (now >= self.timeout_at_ms && !self.ended) {
        self.timed_out = 1;
        self.timeout_at_ms = INT64_MAX;
        mb_pidfd_send_signal(self.pidfd, SIGKILL);
    }
    mb_health_on_time(&self.health, now);
    for (int i = 0; i < 2; i++) {
        mb_log_flush(&self.log, &self.output[i].line);
    }
    if (now >= self.accept_at_ms) {
        self.accept_at_ms = INT64_MAX;
    }
    if (now >= self.retry_at_ms) {
        self.retry_at_ms = INT64_MAX;
        for (int i = 0; i < 2; i++) {
            distribute(&self.output[i]);
        }
    }
}

/* ---- the loop ------------------------------------------------------------------------------- */

enum { P_SIGNALS, P_LISTENER, P_INPUT, P_OUTPUT, P_ERROR, P_CLIENTS, P_COUNT = P_CLIENTS + CLIENTS_MAX };

static void watch(struct pollfd ends[P_COUNT]) {
    ends[P_SIGNALS] = (struct pollfd){.fd = self.signals, .events = POLLIN};
    ends[P_LISTENER] = (struct pollfd){.fd = self.accept_at_ms == INT64_MAX ? self.listener : -1, .events = POLLIN};
    ends[P_INPUT] = (struct pollfd){.fd = self.input_length ? self.input : -1, .events = POLLOUT};
    for (int i = 0; i < 2; i++) {
        struct output *output = &self.output[i];
        int reads = is_done(output) && self.retry_at_ms == INT64_MAX;
        ends[P_OUTPUT + i] = (struct pollfd){.fd = reads ? output->fd : -1, .events = POLLIN};
    }
    for (int i = 0; i < CLIENTS_MAX; i++) {
        int slow = (self.output[0].waiting | self.output[1].waiting) >> i & 1;
        short events = (short)((self.input_length ? 0 : POLLIN) | (slow ? POLLOUT : 0));
        ends[P_CLIENTS + i] = (struct pollfd){.fd = self.clients[i], .events = events};
        if (slow && self.retry_at_ms == INT64_MAX) {
            self.retry_at_ms = now_ms() + RETRY_MS; /* to notice that it is too slow */
        }
    }
}

static void look_after(void) {
    while (!self.ended || self.output[0].fd >= 0 || self.output[1].fd >= 0) {
        struct pollfd ends[P_COUNT];
        watch(ends);
        int64_t now = now_ms();
        mb_poll(ends, P_COUNT, RETRY_MS, self.ended && self.retry_at_ms == INT64_MAX ? 0 : timeout_ms(now));
        on_time(now_ms());
        if (ends[P_SIGNALS].revents) {
            reap();
        }
        if (ends[P_LISTENER].revents) {
            accept_client();
        }
        if (ends[P_INPUT].revents) {
            write_input();
        }
        for (int i = 0; i < CLIENTS_MAX; i++) {
            short happened = ends[P_CLIENTS + i].revents;
            if (happened & POLLOUT) {
                distribute(&self.output[0]);
                distribute(&self.output[1]);
            }
            if (happened & (POLLIN | POLLHUP | POLLERR) && self.clients[i] == ends[P_CLIENTS + i].fd &&
                !self.input_length) {
                read_client(i);
            }
        }
        for (int i = 0; i < 2; i++) {
            struct output *output = &self.output[i];
            int readable = ends[P_OUTPUT + i].revents || (self.ended && ends[P_OUTPUT + i].fd >= 0);
            if (output->fd >= 0 && readable && is_done(output) && !read_output(output)) {
                close_output(output);
            }
        }
    }
}

/* ---- the end -------------------------------------------------------------------------------- */

static void tell_clients(void) {
    int32_t status = mb_exit_status(self.status);
    for (int i = 0; i < CLIENTS_MAX; i++) {
        if (self.clients[i] >= 0) {
            send_packet(self.clients[i], MB_CLIENT_EXIT, &status, sizeof status);
        }
    }
}

int mb_supervisor(void) {
    /* A container's set-up takes its standard streams from slots; ours go to /dev/null. */
    if (mb_begin(1)) {
        return 1;
    }
    memset(self.clients, -1, sizeof self.clients);
    self.retry_at_ms = self.accept_at_ms = INT64_MAX;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    sigset_t seen;
    sigemptyset(&seen);
    sigaddset(&seen, SIGCHLD);
    sigaddset(&seen, SIGTERM);
    self.signals = signalfd(-1, &seen, SFD_CLOEXEC | SFD_NONBLOCK);
    if (self.signals < 0 || serve()) {
        if (self.pidfd >= 0) {
            mb_pidfd_send_signal(self.pidfd, SIGKILL); /* a change of ids may have reset that it dies with its
                                                        * parent */
        }
        return 1;
    }
    dup2(1, CONTROL);
    look_after();
    if (self.helper_pidfd >= 0) {
        mb_pidfd_send_signal(self.helper_pidfd, SIGTERM);
        waitid(P_PIDFD, (id_t)self.helper_pidfd, &(siginfo_t){0}, WEXITED);
    }
    /* A power loss ends a container that is removed now, too. */
    struct mb_outcome ended =
        mb_exit_write(&self.exit, self.status, self.timed_out, self.log.lost, mb_end_keeps(&self.end));
    tell_clients();
    if (self.owned >= 0 && self.owned != CLAIM) {
        dup3(self.owned, CLAIM, 0);
    } else if (self.owned == CLAIM) {
        fcntl(CLAIM, F_SETFD, 0);
    }
    mb_close_range(CLAIM + 1, UINT_MAX, 0); /* before its address is released: what publishes its ports */
    ended.claim = CLAIM;
    if (!self.end.op_count || mb_end(&self.end, &ended)) {
        mb_go_on_as(self.after);
        return 1;
    }
    return 0;
}
