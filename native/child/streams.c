/* Operations on sockets, the terminal and the standard streams. Rules as in child.c. */
#include "child/operations.h"
#include "syscalls.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

int mb_child_above_stdio(int fd) {
    if (fd < 0 || fd > 2) {
        return fd;
    }
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3), saved = errno;
    close(fd);
    errno = saved;
    return moved;
}

int mb_child_fill(struct mb_child *child, uint64_t argument, int fd) {
    fd = mb_child_above_stdio(fd);
    if (fd < 0) {
        return -errno;
    }
    if (child->slots[argument] >= 0) {
        close(child->slots[argument]); /* the limit on descriptors may be low, and there may be many layers */
    }
    child->slots[argument] = fd;
    return 0;
}

int mb_child_send(int socket, uint32_t tag, int fd) {
    struct mb_message message = {.tag = tag};
    struct iovec data = {&message, sizeof message};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1};
    if (fd >= 0) {
        control.header =
            (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
        header.msg_control = &control;
        header.msg_controllen = sizeof control;
    }
    return result(sendmsg(socket, &header, MSG_NOSIGNAL));
}

int mb_child_receive(int socket, struct mb_message *message, int *fd) {
    struct iovec data = {message, sizeof *message};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr header = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t size;
    do {
        size = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    } while (size < 0 && errno == EINTR);
    if (size < 0) {
        return -errno;
    }
    if (size != (ssize_t)sizeof *message) {
        return -ECONNRESET; /* the other end is gone */
    }
    *fd = -1;
    if (header.msg_controllen >= CMSG_LEN(sizeof(int)) && control.header.cmsg_type == SCM_RIGHTS) {
        memcpy(fd, CMSG_DATA(&control.header), sizeof *fd);
    }
    return 0;
}

/* die_with_parent(socket): get SIGKILL when the thread that cloned this process ends. A change of ids resets this,
 * so it is repeated after each. If the parent ended before the call, its end of the socket is closed; getppid(2)
 * can't tell, since it is 0 in a new pid namespace either way. */
int mb_child_op_die_with_parent(struct mb_child *child, const uint64_t *a) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL)) {
        return -errno;
    }
    struct pollfd socket = {.fd = slot(child, a[0])};
    int ready = poll(&socket, 1, 0);
    return ready < 0 ? -errno : socket.revents & (POLLHUP | POLLERR) ? -ESRCH : 0;
}

/* wait(socket, tag): wait until the parent, or another child, sends exactly that tag. */
int mb_child_op_wait(struct mb_child *child, const uint64_t *a) {
    struct mb_message message;
    int fd = -1;
    int error = mb_child_receive(slot(child, a[0]), &message, &fd);
    if (fd >= 0) {
        close(fd);
    }
    return error ? error : message.tag == a[1] ? 0 : -EPROTO;
}

/* tell(socket, tag): report that this child has come this far. */
int mb_child_op_tell(struct mb_child *child, const uint64_t *a) {
    return mb_child_send(slot(child, a[0]), (uint32_t)a[1], -1);
}

/* gate(go, report): wait for a byte from the FIFO `go`, which is open for writing here too, so that the wait
 * doesn't end early. Later failures are written to the file `report`, because the process that made this one may be
 * gone. Uses only read and write, since the seccomp filter may be loaded. */
int mb_child_op_gate(struct mb_child *child, const uint64_t *a) {
    char byte;
    ssize_t size;
    mb_child_unblock_signals(child); /* as for the command to come, so that signals can end it */
    child->record->state = MB_WAITING;
    do {
        size = read(slot(child, a[0]), &byte, 1);
    } while (size < 0 && errno == EINTR);
    child->report = slot(child, a[1]);
    child->record->state = MB_RUNNING;
    return size == 1 ? 0 : size < 0 ? -errno : -ECONNRESET;
}

/* recv_fd(socket, slot) */
int mb_child_op_recv_fd(struct mb_child *child, const uint64_t *a) {
    struct mb_message message;
    int fd = -1;
    int error = mb_child_receive(slot(child, a[0]), &message, &fd);
    if (!error && fd < 0) {
        error = -EPROTO;
    }
    return error ? error : mb_child_fill(child, a[1], fd);
}

/* send_fd(socket, slot, tag) */
int mb_child_op_send_fd(struct mb_child *child, const uint64_t *a) {
    return mb_child_send(slot(child, a[0]), (uint32_t)a[2], slot(child, a[1]));
}

/* Open a terminal's master, or -1. It must be on a devpts, where nobody can make or rename files, and not a file in
 * its place. */
static int open_ptmx(void) {
    int pts = open("/dev/pts", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (pts < 0) {
        return -1;
    }
    int master = -1, error = EMEDIUMTYPE;
    if (mb_child_is_on(pts, DEVPTS_SUPER_MAGIC)) {
        master = mb_openat2(pts, "ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC, 0, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS);
        error = errno;
    }
    close(pts);
    errno = error;
    return master;
}

/* open_pty(master slot, slave slot, rows, columns): a pair of the container's own devpts. TIOCGPTPEER opens the
 * slave without a path, which could be something else. Linux 4.13. */
int mb_child_op_open_pty(struct mb_child *child, const uint64_t *a) {
    int unlock = 0;
    struct winsize size = {.ws_row = (unsigned short)a[2], .ws_col = (unsigned short)a[3]};
    int error = mb_child_fill(child, a[0], open_ptmx());
    if (error) {
        return error;
    }
    int master = slot(child, a[0]);
    if (!mb_child_is_device(master, S_IFCHR, makedev(5, 2))) {
        return -ENXIO;
    }
    if (ioctl(master, TIOCSPTLCK, &unlock) || ioctl(master, TIOCSWINSZ, &size)) {
        return -errno;
    }
    return mb_child_fill(child, a[1], ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
}

int mb_child_op_setsid(struct mb_child *child, const uint64_t *a) {
    (void)child, (void)a;
    return result(setsid());
}

int mb_child_op_controlling_tty(struct mb_child *child, const uint64_t *a) {
    return result(ioctl(slot(child, a[0]), TIOCSCTTY, 0));
}

/* stdio(in, out, err): slots are never below 3, see mb_child_above_stdio. */
int mb_child_op_stdio(struct mb_child *child, const uint64_t *a) {
    for (int fd = 0; fd < 3; fd++) {
        if (dup2(slot(child, a[fd]), fd) < 0) {
            return -errno;
        }
    }
    return 0;
}

/* close_fds(kept): at exec, close everything except the standard streams and the `kept` descriptors after them.
 * Linux 5.11. */
int mb_child_op_close_fds(struct mb_child *child, const uint64_t *a) {
    (void)child;
    return result(mb_close_range(3 + (unsigned)a[0], UINT_MAX, CLOSE_RANGE_CLOEXEC));
}
