/* What runs between clone and exec.
 *
 * Rules of this file: no malloc, no stdio, no lock, nothing that the C library may have left half
 * done in the parent's other threads. Every operation returns 0 or -errno. `make -C native check`
 * holds the undefined symbols of this object against symbols.allowed. */
#include "child.h"
#include "syscalls.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

/* linux/mount.h's, see syscalls.h. */
enum { MB_FSCONFIG_SET_FLAG = 0, MB_FSCONFIG_SET_STRING = 1, MB_FSCONFIG_CMD_CREATE = 6 };
enum { MB_TREE_CLONE = 1 }; /* OPEN_TREE_CLONE */

#define ATTACH_EMPTY (MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)

static int result(long value) { return value < 0 ? -errno : 0; }

static const char *text(uint64_t argument) { return (const char *)(uintptr_t)argument; }

static char **vector(uint64_t argument) { return (char **)(uintptr_t)argument; }

static int slot(const struct mb_child *child, uint64_t argument) { return child->slots[argument]; }

/* A caller with closed standard streams gets low numbers for what it opens: out of the way of
 * op_stdio, which would close them or leave them close-on-exec. */
static int above_stdio(int fd) {
    if (fd < 0 || fd > 2) {
        return fd;
    }
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3), saved = errno;
    close(fd);
    errno = saved;
    return moved;
}

/* Put a descriptor into a slot. */
static int fill(struct mb_child *child, uint64_t argument, int fd) {
    fd = above_stdio(fd);
    if (fd < 0) {
        return -errno;
    }
    child->slots[argument] = fd;
    return 0;
}

/* ---- paths -------------------------------------------------------------------------------- */

/* Open `path` inside the root of slot `root`, where neither "..", nor a symlink, nor a magic link
 * of /proc leads out of it; or, with MB_HOST, as this process sees it. */
static int open_in(const struct mb_child *child, uint64_t root, const char *path, int flags) {
    if (root == MB_HOST) {
        return open(path, flags | O_CLOEXEC);
    }
    for (int tries = 0;; tries++) {
        int fd = mb_openat2(slot(child, root), path, (uint64_t)flags | O_CLOEXEC, 0,
                            RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
        /* EAGAIN: a rename elsewhere raced with ".."; openat2(2) says to try again. */
        if (fd >= 0 || errno != EAGAIN || tries == 32) {
            return fd;
        }
    }
}

/* Make the directory `path` and its missing parents; returns an O_PATH descriptor or -1.
 * `path` is changed on the way and restored. */
static int make_directories(const struct mb_child *child, uint64_t root, char *path, mode_t mode) {
    int fd = open_in(child, root, path, O_PATH | O_DIRECTORY);
    if (fd >= 0 || errno != ENOENT) {
        return fd;
    }
    int parent = open_in(child, root, "/", O_PATH | O_DIRECTORY);
    char *component = path;
    while (parent >= 0) {
        component += strspn(component, "/");
        size_t length = strcspn(component, "/");
        if (!length) {
            return parent;
        }
        char after = component[length];
        component[length] = '\0';
        fd = open_in(child, root, path, O_PATH | O_DIRECTORY);
        if (fd < 0 && errno == ENOENT && (!mkdirat(parent, component, mode) || errno == EEXIST)) {
            fd = open_in(child, root, path, O_PATH | O_DIRECTORY);
        }
        component[length] = after;
        component += length;
        int saved = errno;
        close(parent);
        errno = saved;
        parent = fd;
    }
    return -1;
}

/* Make the file `path`, and its missing parent directories; -1 and EEXIST for a link to nowhere.
 * `path` is changed on the way and restored. */
static int make_file(const struct mb_child *child, uint64_t root, char *path) {
    char *name = strrchr(path, '/');
    if (!name || !name[1]) {
        errno = EISDIR;
        return -1;
    }
    *name = '\0';
    char top[] = "/";
    int parent = make_directories(child, root, *path ? path : top, 0755);
    *name++ = '/';
    if (parent < 0) {
        return -1;
    }
    int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    int saved = errno;
    close(parent);
    errno = saved;
    return fd;
}

/* Replace the path of a symlink by the path that it leads to. `path` holds PATH_MAX bytes. */
static int follow(const struct mb_child *child, uint64_t root, char *path) {
    char target[PATH_MAX];
    int link = open_in(child, root, path, O_PATH | O_NOFOLLOW);
    ssize_t size = link < 0 ? -1 : readlinkat(link, "", target, sizeof target);
    int saved = errno;
    if (link >= 0) {
        close(link);
    }
    errno = saved;
    if (size < 0) {
        return -1;
    }
    char *name = strrchr(path, '/');
    size_t kept = size && target[0] == '/' ? 0 : name ? (size_t)(name + 1 - path) : 0;
    if (kept + (size_t)size >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(path + kept, target, (size_t)size);
    path[kept + (size_t)size] = '\0';
    return 0;
}

/* An O_PATH descriptor of a mount point, which is made when missing: a directory or a file. Where
 * the image has a link to nowhere, it is made where the link leads, inside of the root. */
static int open_target(const struct mb_child *child, uint64_t root, const char *path, bool directory) {
    int fd = open_in(child, root, path, O_PATH);
    size_t length = strlen(path);
    if (fd >= 0 || errno != ENOENT) {
        return fd;
    }
    if (length >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    char copy[PATH_MAX];
    memcpy(copy, path, length + 1);
    if (directory) {
        return make_directories(child, root, copy, 0755);
    }
    for (int links = 0;; links++) {
        fd = make_file(child, root, copy);
        if (fd >= 0 || errno != EEXIST || links == 40) {
            return fd;
        }
        if (follow(child, root, copy)) {
            return -1;
        }
    }
}

static bool is_directory(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

static int attach_at(const struct mb_child *child, int mount, uint64_t root, const char *path) {
    int target = open_target(child, root, path, is_directory(mount));
    if (target < 0) {
        return -errno;
    }
    int error = result(mb_move_mount(mount, "", target, "", ATTACH_EMPTY));
    close(target);
    return error;
}

/* Attach and close. */
static int place(const struct mb_child *child, int mount, uint64_t root, const char *path) {
    if (mount < 0) {
        return -errno;
    }
    int error = attach_at(child, mount, root, path);
    close(mount);
    return error;
}

/* ---- mounts ------------------------------------------------------------------------------- */

/* Give a file system context its options: "key,key=value,...". */
static int set_options(int fs, const char *options) {
    char copy[4096];
    if (strlen(options) >= sizeof copy) {
        return -E2BIG;
    }
    strcpy(copy, options);
    for (char *option = copy, *next; *option; option = next) {
        next = option + strcspn(option, ",");
        if (*next) {
            *next++ = '\0';
        }
        char *value = strchr(option, '=');
        if (value) {
            *value++ = '\0';
        }
        if (*option && mb_fsconfig(fs, value ? MB_FSCONFIG_SET_STRING : MB_FSCONFIG_SET_FLAG, option, value, 0)) {
            return -errno;
        }
    }
    return 0;
}

/* A new detached mount, or -errno. */
static int new_mount(const char *fstype, const char *source, const char *options, unsigned attributes) {
    int fs = mb_fsopen(fstype, 1 /* FSOPEN_CLOEXEC */);
    if (fs < 0) {
        return -errno;
    }
    int error = source ? result(mb_fsconfig(fs, MB_FSCONFIG_SET_STRING, "source", source, 0)) : 0;
    if (!error) {
        error = set_options(fs, options);
    }
    if (!error) {
        error = result(mb_fsconfig(fs, MB_FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    }
    if (!error) {
        int mount = mb_fsmount(fs, 1 /* FSMOUNT_CLOEXEC */, attributes);
        error = mount < 0 ? -errno : mount;
    }
    close(fs);
    return error;
}

/* mount(fstype, source, options, root, target, attributes): the new mount API has no limit of
 * one page for all options and never interprets a path a second time. */
static int op_mount(struct mb_child *child, const uint64_t *a) {
    int mount = new_mount(text(a[0]), text(a[1]), text(a[2]), (unsigned)a[5]);
    if (mount < 0) {
        return mount;
    }
    return place(child, mount, a[3], text(a[4]));
}

/* mount_overlay(directory, options, target): mount(2), since fsconfig(2) takes no string over 256
 * bytes and "lowerdir+" is of Linux 6.5. Paths in options and target are relative to directory,
 * so that many layers fit into mount(2)'s one page. */
static int op_mount_overlay(struct mb_child *child, const uint64_t *a) {
    (void)child;
    if (chdir(text(a[0]))) {
        return -errno;
    }
    return result(mount("overlay", text(a[2]), "overlay", 0, text(a[1])));
}

/* open_tree(path, flags, slot): a detached copy of what is mounted at a path of this namespace. */
static int op_open_tree(struct mb_child *child, const uint64_t *a) {
    return fill(child, a[2], mb_open_tree(AT_FDCWD, text(a[0]), MB_TREE_CLONE | O_CLOEXEC | (unsigned)a[1]));
}

/* id_map(mount, recursive, userns): show the files of a detached mount with the ids of a user
 * namespace: what is 0 on disk is the mapped root to everyone. Linux 5.12. */
static int op_id_map(struct mb_child *child, const uint64_t *a) {
    struct mb_mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)slot(child, a[2])};
    return result(mb_mount_setattr(slot(child, a[0]), "", AT_EMPTY_PATH | (a[1] ? AT_RECURSIVE : 0), &attr));
}

/* mount_attributes(mount, set, clear, propagation, recursive) */
static int op_mount_attributes(struct mb_child *child, const uint64_t *a) {
    struct mb_mount_attr attr = {.attr_set = a[1], .attr_clr = a[2], .propagation = a[3]};
    return result(mb_mount_setattr(slot(child, a[0]), "", AT_EMPTY_PATH | (a[4] ? AT_RECURSIVE : 0), &attr));
}

/* propagation(path, flags): mount(2)'s MS_PRIVATE and friends. */
static int op_propagation(struct mb_child *child, const uint64_t *a) {
    (void)child;
    return result(mount(NULL, text(a[0]), NULL, a[1], NULL));
}

/* attach(mount, root, target) */
static int op_attach(struct mb_child *child, const uint64_t *a) {
    return attach_at(child, slot(child, a[0]), a[1], text(a[2]));
}

/* bind(source, root, target, attributes, recursive) */
static int op_bind(struct mb_child *child, const uint64_t *a) {
    unsigned recursive = a[4] ? AT_RECURSIVE : 0;
    int tree = mb_open_tree(AT_FDCWD, text(a[0]), MB_TREE_CLONE | O_CLOEXEC | recursive);
    struct mb_mount_attr attr = {.attr_set = a[3]};
    if (tree >= 0 && a[3] && mb_mount_setattr(tree, "", AT_EMPTY_PATH | recursive, &attr)) {
        int error = -errno;
        close(tree);
        return error;
    }
    return place(child, tree, a[1], text(a[2]));
}

/* bind_fd(fd, root, target): the file that a descriptor is open on. */
static int op_bind_fd(struct mb_child *child, const uint64_t *a) {
    int tree = mb_open_tree(slot(child, a[0]), "", MB_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH);
    return place(child, tree, a[1], text(a[2]));
}

/* mask(root, path): nothing can be read there; a path that isn't there needs no mask. */
static int op_mask(struct mb_child *child, const uint64_t *a) {
    int target = open_in(child, a[0], text(a[1]), O_PATH);
    if (target < 0) {
        return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
    }
    int cover;
    if (is_directory(target)) {
        cover = new_mount("tmpfs", NULL, "size=0,nr_inodes=1,mode=0755",
                          MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    } else {
        int null = open_in(child, a[0], "/dev/null", O_PATH);
        cover = null < 0 ? -1 : mb_open_tree(null, "", MB_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH);
        cover = cover < 0 ? -errno : cover;
        if (null >= 0) {
            close(null);
        }
    }
    int error = cover;
    if (cover >= 0) {
        error = result(mb_move_mount(cover, "", target, "", ATTACH_EMPTY));
        close(cover);
    }
    close(target);
    return error;
}

/* read_only(root, path): a read-only mount of the path over itself. */
static int op_read_only(struct mb_child *child, const uint64_t *a) {
    int target = open_in(child, a[0], text(a[1]), O_PATH);
    if (target < 0) {
        return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
    }
    struct mb_mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    unsigned flags = AT_EMPTY_PATH | AT_RECURSIVE;
    int tree = mb_open_tree(target, "", MB_TREE_CLONE | O_CLOEXEC | flags);
    int error = tree < 0 ? -errno : result(mb_mount_setattr(tree, "", flags, &attr));
    if (!error) {
        error = result(mb_move_mount(tree, "", target, "", ATTACH_EMPTY));
    }
    if (tree >= 0) {
        close(tree);
    }
    close(target);
    return error;
}

/* pivot_root(root): with "." for both, the old root is stacked on the new one at "/", and the
 * unmount of "." takes the topmost, the old; pivot_root(2), NOTES. MNT_DETACH, as this process
 * still has files of the old root open. */
static int op_pivot_root(struct mb_child *child, const uint64_t *a) {
    if (fchdir(slot(child, a[0])) || mb_pivot_root(".", ".") || umount2(".", MNT_DETACH)) {
        return -errno;
    }
    return result(chdir("/"));
}

/* ---- files -------------------------------------------------------------------------------- */

/* open(path, flags, slot) */
static int op_open(struct mb_child *child, const uint64_t *a) {
    return fill(child, a[2], open(text(a[0]), (int)a[1] | O_CLOEXEC));
}

/* mkdir(root, path, mode): with its parents; there already is fine. */
static int op_mkdir(struct mb_child *child, const uint64_t *a) {
    char copy[PATH_MAX];
    size_t length = strlen(text(a[1]));
    if (length >= sizeof copy) {
        return -ENAMETOOLONG;
    }
    memcpy(copy, text(a[1]), length + 1);
    int fd = make_directories(child, a[0], copy, (mode_t)a[2]);
    if (fd < 0) {
        return -errno;
    }
    close(fd);
    return 0;
}

/* Open the directory of `path`, which must be there; *name is the last part, within `copy`. */
static int open_parent(const struct mb_child *child, uint64_t root, const char *path, char copy[PATH_MAX],
                       const char **name) {
    size_t length = strlen(path);
    char *slash = length < PATH_MAX ? strrchr(memcpy(copy, path, length + 1), '/') : NULL;
    if (!slash) {
        errno = EINVAL;
        return -1;
    }
    *slash = '\0';
    *name = slash + 1;
    return open_in(child, root, *copy ? copy : "/", O_PATH | O_DIRECTORY);
}

/* mknod(root, path, mode and type, device, uid, gid) */
static int op_mknod(struct mb_child *child, const uint64_t *a) {
    char copy[PATH_MAX];
    const char *name;
    int parent = open_parent(child, a[0], text(a[1]), copy, &name);
    if (parent < 0) {
        return -errno;
    }
    int error = result(mknodat(parent, name, (mode_t)a[2], (dev_t)a[3]));
    if (!error) {
        error = result(fchownat(parent, name, (uid_t)a[4], (gid_t)a[5], AT_SYMLINK_NOFOLLOW));
    }
    close(parent);
    return error;
}

/* symlink(target, root, path): the directory must be there. */
static int op_symlink(struct mb_child *child, const uint64_t *a) {
    char copy[PATH_MAX];
    const char *name;
    int parent = open_parent(child, a[1], text(a[2]), copy, &name);
    if (parent < 0) {
        return -errno;
    }
    int error = result(symlinkat(text(a[0]), parent, name));
    close(parent);
    return error;
}

static int write_all(int fd, struct mb_bytes bytes) {
    ssize_t written = write(fd, bytes.data, bytes.size);
    return written < 0 ? -errno : (size_t)written == bytes.size ? 0 : -EIO;
}

/* write_file(root, path, bytes): in one write, as files of /proc want it. */
static int op_write_file(struct mb_child *child, const uint64_t *a) {
    int fd = open_in(child, a[0], text(a[1]), O_WRONLY);
    if (fd < 0) {
        return -errno;
    }
    int error = write_all(fd, mb_plan_bytes(child->plan, a[2]));
    close(fd);
    return error;
}

/* write_fd(fd, bytes): to a file that only the parent may open. */
static int op_write_fd(struct mb_child *child, const uint64_t *a) {
    return write_all(slot(child, a[0]), mb_plan_bytes(child->plan, a[1]));
}

/* chdir(path): no magic link may lead to a directory outside that a leaked descriptor holds
 * open (CVE-2024-21626). */
static int op_chdir(struct mb_child *child, const uint64_t *a) {
    (void)child;
    int fd = mb_openat2(AT_FDCWD, text(a[0]), O_PATH | O_DIRECTORY | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
    if (fd < 0) {
        return -errno;
    }
    int error = result(fchdir(fd));
    close(fd);
    return error;
}

/* ---- talking to the parent ---------------------------------------------------------------- */

static int send_message(int socket, uint32_t tag, int fd) {
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

/* Wait for one message; its descriptor, if any, goes to *fd. */
static int receive_message(int socket, struct mb_message *message, int *fd) {
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

/* die_with_parent(socket): SIGKILL when the thread that cloned this process ends. A change of
 * ids forgets the wish, so it is made again after each. A parent that ended before the call is
 * seen by its closed end of the socket: getppid(2) is 0 in a new pid namespace either way. */
static int op_die_with_parent(struct mb_child *child, const uint64_t *a) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL)) {
        return -errno;
    }
    struct pollfd socket = {.fd = slot(child, a[0])};
    int ready = poll(&socket, 1, 0);
    return ready < 0 ? -errno : socket.revents & (POLLHUP | POLLERR) ? -ESRCH : 0;
}

/* wait(socket, tag): until the parent, or another child, sends that very tag. */
static int op_wait(struct mb_child *child, const uint64_t *a) {
    struct mb_message message;
    int fd = -1;
    int error = receive_message(slot(child, a[0]), &message, &fd);
    if (fd >= 0) {
        close(fd);
    }
    return error ? error : message.tag == a[1] ? 0 : -EPROTO;
}

/* recv_fd(socket, slot) */
static int op_recv_fd(struct mb_child *child, const uint64_t *a) {
    struct mb_message message;
    int fd = -1;
    int error = receive_message(slot(child, a[0]), &message, &fd);
    if (!error && fd < 0) {
        error = -EPROTO;
    }
    return error ? error : fill(child, a[1], fd);
}

/* send_fd(socket, slot, tag) */
static int op_send_fd(struct mb_child *child, const uint64_t *a) {
    return send_message(slot(child, a[0]), (uint32_t)a[2], slot(child, a[1]));
}

/* ---- namespaces, names, limits ------------------------------------------------------------ */

static int op_unshare(struct mb_child *child, const uint64_t *a) {
    (void)child;
    return result(unshare((int)a[0]));
}

static int op_setns(struct mb_child *child, const uint64_t *a) { return result(setns(slot(child, a[0]), (int)a[1])); }

static int op_sethostname(struct mb_child *child, const uint64_t *a) {
    (void)child;
    return result(sethostname(text(a[0]), strlen(text(a[0]))));
}

static int op_setdomainname(struct mb_child *child, const uint64_t *a) {
    (void)child;
    return result(setdomainname(text(a[0]), strlen(text(a[0]))));
}

/* setrlimit(resource, soft, hard) */
static int op_setrlimit(struct mb_child *child, const uint64_t *a) {
    (void)child;
    struct rlimit limit = {a[1], a[2]};
    return result(setrlimit((__rlimit_resource_t)a[0], &limit));
}

static int op_umask(struct mb_child *child, const uint64_t *a) {
    (void)child;
    umask((mode_t)a[0]);
    return 0;
}

/* A new network namespace has its loopback down. */
static int op_loopback_up(struct mb_child *child, const uint64_t *a) {
    (void)child, (void)a;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    struct ifreq request = {.ifr_name = "lo"};
    int error = result(ioctl(fd, SIOCGIFFLAGS, &request));
    if (!error) {
        request.ifr_flags |= IFF_UP;
        error = result(ioctl(fd, SIOCSIFFLAGS, &request));
    }
    close(fd);
    return error;
}

/* A session keyring of its own: keys of the caller's must not be found from inside. A kernel
 * without keyrings has none to find; at the quota's end (EDQUOT) runc goes on too. */
static int op_session_keyring(struct mb_child *child, const uint64_t *a) {
    (void)child, (void)a;
    long keyring = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
    return keyring < 0 && errno != ENOSYS && errno != EDQUOT ? -errno : 0;
}

/* ---- terminal and standard streams -------------------------------------------------------- */

/* open_pty(master slot, slave slot, rows, columns): a pair of the container's own devpts. The
 * slave is opened by TIOCGPTPEER, without a path that could be something else. Linux 4.13. */
static int op_open_pty(struct mb_child *child, const uint64_t *a) {
    int unlock = 0;
    struct winsize size = {.ws_row = (unsigned short)a[2], .ws_col = (unsigned short)a[3]};
    int master = above_stdio(open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (fill(child, a[0], master) || ioctl(master, TIOCSPTLCK, &unlock) || ioctl(master, TIOCSWINSZ, &size)) {
        return -errno;
    }
    return fill(child, a[1], ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
}

static int op_setsid(struct mb_child *child, const uint64_t *a) {
    (void)child, (void)a;
    return result(setsid());
}

static int op_controlling_tty(struct mb_child *child, const uint64_t *a) {
    return result(ioctl(slot(child, a[0]), TIOCSCTTY, 0));
}

/* stdio(in, out, err): slots are never below 3, see above_stdio. */
static int op_stdio(struct mb_child *child, const uint64_t *a) {
    for (int fd = 0; fd < 3; fd++) {
        if (dup2(slot(child, a[fd]), fd) < 0) {
            return -errno;
        }
    }
    return 0;
}

/* Everything but standard input, output and error closes at exec. Linux 5.11. */
static int op_close_fds(struct mb_child *child, const uint64_t *a) {
    (void)child, (void)a;
    return result(mb_close_range(3, UINT_MAX, CLOSE_RANGE_CLOEXEC));
}

/* ---- identity ----------------------------------------------------------------------------- */

/* The raw calls: the C library's set*id functions signal all threads it believes there are. */

static int capabilities_of_self(struct __user_cap_data_struct data[2]) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    return result(syscall(SYS_capget, &header, data));
}

static int set_capabilities(const struct __user_cap_data_struct data[2]) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    return result(syscall(SYS_capset, &header, data));
}

/* set_fs_ids(uid, gid): act on files as these ids and keep the capabilities, which a change from
 * 0 takes out of the effective set. An overlay keeps the credentials it was mounted with, and
 * below an id-mapped layer only mapped ids can own what it makes there. */
static int op_set_fs_ids(struct mb_child *child, const uint64_t *a) {
    (void)child;
    syscall(SYS_setfsgid, a[1]);
    syscall(SYS_setfsuid, a[0]);
    struct __user_cap_data_struct data[2];
    int error = capabilities_of_self(data);
    if (error) {
        return error;
    }
    data[0].effective = data[0].permitted;
    data[1].effective = data[1].permitted;
    return set_capabilities(data);
}

/* setgroups(bytes): an array of 32-bit group ids. */
static int op_setgroups(struct mb_child *child, const uint64_t *a) {
    struct mb_bytes groups = mb_plan_bytes(child->plan, a[0]);
    return result(syscall(SYS_setgroups, groups.size / sizeof(uint32_t), groups.data));
}

static int op_setresgid(struct mb_child *child, const uint64_t *a) {
    (void)child;
    return result(syscall(SYS_setresgid, a[0], a[0], a[0]));
}

/* setresuid(uid): the permitted capabilities survive until capset or exec. */
static int op_setresuid(struct mb_child *child, const uint64_t *a) {
    (void)child;
    if (prctl(PR_SET_KEEPCAPS, 1)) {
        return -errno;
    }
    return result(syscall(SYS_setresuid, a[0], a[0], a[0]));
}

/* cap_bounding(mask): what isn't in the mask can never be gained again, not by a set-uid file. */
static int op_cap_bounding(struct mb_child *child, const uint64_t *a) {
    (void)child;
    for (unsigned long capability = 0; capability < 64; capability++) {
        int has = prctl(PR_CAPBSET_READ, capability);
        if (has < 0) {
            return 0; /* EINVAL: past the kernel's last */
        }
        if (has && !(a[0] >> capability & 1) && prctl(PR_CAPBSET_DROP, capability)) {
            return -errno;
        }
    }
    return 0;
}

/* capset(effective, permitted, inheritable): of these, those that the caller has: nobody can
 * give what he lacks, and a host that lacks one still runs containers. */
static int op_capset(struct mb_child *child, const uint64_t *a) {
    (void)child;
    struct __user_cap_data_struct data[2];
    int error = capabilities_of_self(data);
    for (int i = 0; i < 2 && !error; i++) {
        uint32_t had = data[i].permitted;
        data[i].effective = (uint32_t)(a[0] >> 32 * i) & had;
        data[i].permitted = (uint32_t)(a[1] >> 32 * i) & had;
        data[i].inheritable = (uint32_t)(a[2] >> 32 * i) & had;
    }
    return error ? error : set_capabilities(data);
}

/* cap_ambient(mask): kept over the exec of a file without capabilities. */
static int op_cap_ambient(struct mb_child *child, const uint64_t *a) {
    (void)child;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)) {
        return -errno;
    }
    for (unsigned long capability = 0; capability < 64; capability++) {
        if (a[0] >> capability & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)) {
            return -errno;
        }
    }
    return 0;
}

static int op_no_new_privs(struct mb_child *child, const uint64_t *a) {
    (void)child, (void)a;
    return result(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

/* seccomp(program, flags): an array of struct sock_filter. */
static int op_seccomp(struct mb_child *child, const uint64_t *a) {
    struct mb_bytes program = mb_plan_bytes(child->plan, a[0]);
    if (program.size / 8 > USHRT_MAX) {
        return -EINVAL; /* as the kernel, which allows 4096, would have answered */
    }
    struct {
        unsigned short length;
        const void *filter;
    } filter = {(unsigned short)(program.size / 8), program.data};
    return result(syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, a[1], &filter));
}

/* ---- exec --------------------------------------------------------------------------------- */

static void unblock_signals(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Tell the parent where the command was looked for, and wait until it has seen enough: the mounts
 * below the root directory go with this process's namespace. */
static int exec_failed(struct mb_child *child, int error) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    child->record->error = -error;
    child->record->state = MB_FAILED;
    int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int parent = child->slots[MB_SLOT_STATUS];
    struct mb_message none;
    int no_fd;
    if (root >= 0 && !send_message(parent, MB_TAG_ROOT, root)) {
        receive_message(parent, &none, &no_fd); /* nothing comes, but the end */
    }
    return error;
}

/* exec(candidates, argv, envp): the first candidate that executes. As execvp(3), a candidate that
 * is there and can't be executed is reported over those that aren't there. */
static int op_exec(struct mb_child *child, const uint64_t *a) {
    int error = -ENOENT;
    unblock_signals();
    child->record->state = MB_EXEC;
    for (char **candidate = vector(a[0]); *candidate; candidate++) {
        execve(*candidate, vector(a[1]), vector(a[2]));
        if (errno != ENOENT && errno != ENOTDIR) {
            error = -errno;
            child->record->detail = (uint32_t)(candidate - vector(a[0]));
            if (errno != EACCES) {
                break;
            }
        }
    }
    return exec_failed(child, error);
}

/* ---- the loop ----------------------------------------------------------------------------- */

static int (*const operations[])(struct mb_child *, const uint64_t *) = {
#define MB_OP(name, arguments) op_##name,
#include "operations.def"
#undef MB_OP
};

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Close all descriptors but the slots'. A caller's end of a socket that stayed open here would
 * keep this process from ever seeing that the caller is gone. */
static void close_others(const struct mb_child *child) {
    for (unsigned from = 3;;) {
        unsigned next = UINT_MAX;
        for (size_t i = 0; i < MB_SLOTS; i++) {
            if (child->slots[i] >= (int)from && (unsigned)child->slots[i] < next) {
                next = (unsigned)child->slots[i];
            }
        }
        if (next > from) {
            mb_close_range(from, next - 1, 0);
        }
        if (next == UINT_MAX) {
            return;
        }
        from = next + 1;
    }
}

_Noreturn void mb_child_main(struct mb_child *child) {
    struct mb_record *record = child->record;
    /* Python ignores SIGPIPE and handles SIGINT; an ignored signal would stay so over exec. */
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++) {
        sigaction(number, &action, NULL);
    }
    umask(0);
    /* Not above_stdio: two slots may hold one descriptor. */
    for (size_t i = 0; i < MB_SLOTS; i++) {
        if (child->slots[i] >= 0 && child->slots[i] < 3) {
            child->slots[i] = fcntl(child->slots[i], F_DUPFD_CLOEXEC, 3);
        }
    }
    /* Close-on-exec: no stream that the caller was started with, but its end of a socket, say. */
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) == FD_CLOEXEC) {
            close(fd);
        }
    }
    close_others(child);
    for (uint32_t i = 0; i < child->plan->op_count; i++) {
        const struct mb_op *op = &child->plan->ops[i];
        record->index = i;
        record->time[i].begin_ns = now_ns();
        int error = operations[op->code](child, op->argument);
        record->time[i].end_ns = now_ns();
        if (error) {
            record->error = -error;
            record->state = MB_FAILED;
            _exit(1);
        }
    }
    record->state = MB_DONE;
    _exit(0);
}
