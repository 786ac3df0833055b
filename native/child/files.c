/* Operations on files and directories, and the path resolution for all others. Rules as in child.c. */
#include "child/operations.h"
#include "syscalls.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

bool mb_child_is_on(int fd, long magic) {
    struct statfs found;
    return fstatfs(fd, &found) == 0 && found.f_type == magic;
}

bool mb_child_is_device(int fd, mode_t mode, dev_t device) {
    struct stat found;
    return fstat(fd, &found) == 0 && (found.st_mode & S_IFMT) == (mode & S_IFMT) && found.st_rdev == device;
}

int mb_child_open_in(const struct mb_child *child, uint64_t root, const char *path, int flags) {
    if (root == MB_HOST) {
        return open(path, flags | O_CLOEXEC);
    }
    const uint64_t resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (root & MB_NO_LINKS ? RESOLVE_NO_SYMLINKS : 0);
    for (int tries = 0;; tries++) {
        int fd = mb_openat2(slot(child, root & ~MB_NO_LINKS), path, (uint64_t)flags | O_CLOEXEC, 0, resolve);
        /* EAGAIN: a rename raced with ".."; openat2(2) says to try again. */
        if (fd >= 0 || errno != EAGAIN || tries == 32) {
            return fd;
        }
    }
}

/* Close a descriptor without changing errno. */
static void close_quietly(int fd) {
    int saved = errno;
    if (fd >= 0) {
        close(fd);
    }
    errno = saved;
}

/* A path being walked: `done` exists and has no link, `here` is open on it; `rest` is still to be walked. */
struct walk {
    char done[PATH_MAX], rest[PATH_MAX];
    int here, links;
};

static int step_up(const struct mb_child *child, uint64_t root, struct walk *walk) {
    char *slash = strrchr(walk->done, '/');
    if (slash) {
        *slash = '\0';
    }
    close(walk->here);
    walk->here = mb_child_open_in(child, root, *walk->done ? walk->done : "/", O_PATH | O_DIRECTORY);
    return walk->here < 0 ? -1 : 0;
}

/* Put the target of a symlink in front of the rest of the path. */
static int step_through(const struct mb_child *child, uint64_t root, struct walk *walk, int link, const char *after) {
    char target[PATH_MAX];
    ssize_t size = root != MB_HOST && root & MB_NO_LINKS ? -1 : readlinkat(link, "", target, sizeof target);
    if (size < 0 || ++walk->links > 40) {
        errno = ELOOP;
        return -1;
    }
    size_t left = strlen(after);
    if ((size_t)size + left >= sizeof walk->rest) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memmove(walk->rest + size, after, left + 1);
    memcpy(walk->rest, target, (size_t)size);
    if (size && target[0] == '/') {
        walk->done[0] = '\0';
    }
    return step_up(child, root, walk);
}

/* Open what the walk has reached; make it if missing, as a directory, or as a file if it is the last part of a
 * file's path. */
static int open_or_make(const struct mb_child *child, uint64_t root, const struct walk *walk, const char *name,
                        mode_t mode) {
    int fd = mb_child_open_in(child, root, walk->done, O_PATH | O_NOFOLLOW);
    if (fd >= 0 || errno != ENOENT) {
        return fd;
    }
    if (S_ISDIR(mode)) {
        if (mkdirat(walk->here, name, mode & 07777) && errno != EEXIST) {
            return -1;
        }
    } else {
        fd = openat(walk->here, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 07777);
        if (fd >= 0 || errno != EEXIST) {
            return fd;
        }
    }
    return mb_child_open_in(child, root, walk->done, O_PATH | O_NOFOLLOW);
}

/* Walk one component of the path; 1 at its end. */
static int step(const struct mb_child *child, uint64_t root, struct walk *walk, mode_t mode) {
    char *name = walk->rest + strspn(walk->rest, "/");
    size_t length = strcspn(name, "/"), done = strlen(walk->done);
    const char *after = name + length;
    bool is_last = !after[strspn(after, "/")];
    if (!length) {
        return 1;
    }
    if (length <= 2 && !strncmp(name, "..", length)) {
        memmove(walk->rest, after, strlen(after) + 1);
        return length == 1 ? 0 : step_up(child, root, walk);
    }
    if (length > NAME_MAX || done + 1 + length >= sizeof walk->done) {
        errno = ENAMETOOLONG;
        return -1;
    }
    walk->done[done] = '/';
    memcpy(walk->done + done + 1, name, length);
    walk->done[done + 1 + length] = '\0';
    int fd = open_or_make(child, root, walk, walk->done + done + 1, S_ISDIR(mode) || is_last ? mode : S_IFDIR | 0755);
    struct stat status;
    if (fd < 0 || fstat(fd, &status)) {
        close_quietly(fd);
        return -1;
    }
    if (S_ISLNK(status.st_mode)) {
        int error = step_through(child, root, walk, fd, after);
        close_quietly(fd);
        return error;
    }
    memmove(walk->rest, after, strlen(after) + 1);
    close(walk->here);
    walk->here = fd;
    return 0; /* if this isn't a directory, the next step gets ENOTDIR */
}

/* Open the directory of `path`, which must exist; *name is the last part, within `copy`. */
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
    return mb_child_open_in(child, root, *copy ? copy : "/", O_PATH | O_DIRECTORY);
}

/* Make the last part of a path whose directory exists, as it mostly does. -1: walk. */
static int make_last(const struct mb_child *child, uint64_t root, const char *path, mode_t mode) {
    char copy[PATH_MAX];
    const char *name;
    int parent = open_parent(child, root, path, copy, &name);
    if (parent < 0) {
        return -1;
    }
    int made = S_ISDIR(mode) ? mkdirat(parent, name, mode & 07777)
                             : openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 07777);
    close(parent);
    return made < 0 || !S_ISDIR(mode) ? made : mb_child_open_in(child, root, path, O_PATH | O_DIRECTORY);
}

/* Walk a path and make what is missing, as the kernel would: neither links nor ".." lead out of the root. Changing
 * the path meanwhile doesn't help an attacker, because each step is looked up from the root again. */
static int make(const struct mb_child *child, uint64_t root, const char *path, mode_t mode) {
    int last = make_last(child, root, path, mode);
    if (last >= 0) {
        return last;
    }
    struct walk walk = {.here = -1};
    size_t length = strlen(path);
    if (length >= sizeof walk.rest) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(walk.rest, path, length + 1);
    walk.here = mb_child_open_in(child, root, "/", O_PATH | O_DIRECTORY);
    int stepped = walk.here < 0 ? -1 : 0;
    while (!stepped) {
        stepped = step(child, root, &walk, mode);
    }
    if (stepped < 0) {
        close_quietly(walk.here);
        return -1;
    }
    return walk.here;
}

int mb_child_make_directories(const struct mb_child *child, uint64_t root, const char *path, mode_t mode) {
    int fd = mb_child_open_in(child, root, path, O_PATH | O_DIRECTORY);
    return fd >= 0 || errno != ENOENT ? fd : make(child, root, path, S_IFDIR | mode);
}

int mb_child_open_target(const struct mb_child *child, uint64_t root, const char *path, bool directory) {
    int fd = mb_child_open_in(child, root, path, O_PATH);
    return fd >= 0 || errno != ENOENT ? fd : make(child, root, path, directory ? S_IFDIR | 0755 : S_IFREG | 0644);
}

/* open(path, flags, slot) */
int mb_child_op_open(struct mb_child *child, const uint64_t *a) {
    return mb_child_fill(child, a[2], open(text(a[0]), (int)a[1] | O_CLOEXEC));
}

/* open_in(root, path, flags, slot) */
int mb_child_op_open_in(struct mb_child *child, const uint64_t *a) {
    return mb_child_fill(child, a[3], mb_child_open_in(child, a[0], text(a[1]), (int)a[2]));
}

/* open_at(directory, path, flags, slot): below a directory that others can't change, such as the host's /proc.
 * Follows magic links too. */
int mb_child_op_open_at(struct mb_child *child, const uint64_t *a) {
    return mb_child_fill(child, a[3], openat(slot(child, a[0]), text(a[1]), (int)a[2] | O_CLOEXEC));
}

/* mkdir(root, path, mode): with its parents; it may exist. */
int mb_child_op_mkdir(struct mb_child *child, const uint64_t *a) {
    int fd = mb_child_make_directories(child, a[0], text(a[1]), (mode_t)a[2]);
    if (fd < 0) {
        return -errno;
    }
    close(fd);
    return 0;
}

/* A file in the place of a device must be that device: config-linux.md, "Devices". */
static int same_device(int parent, const char *name, mode_t mode, dev_t device) {
    struct stat found;
    if (fstatat(parent, name, &found, AT_SYMLINK_NOFOLLOW) < 0) {
        return -errno;
    }
    return (found.st_mode & S_IFMT) == (mode & S_IFMT) && (S_ISFIFO(mode) || found.st_rdev == device) ? 0 : -EEXIST;
}

/* mknod(root, path, mode and type, device, uid, gid, source): an existing one stays. In a user namespace that isn't
 * the host's, nobody can make devices: bind the host's device `source` there. */
int mb_child_op_mknod(struct mb_child *child, const uint64_t *a) {
    char copy[PATH_MAX];
    const char *name;
    int parent = open_parent(child, a[0], text(a[1]), copy, &name);
    if (parent < 0) {
        return -errno;
    }
    int error = result(mknodat(parent, name, (mode_t)a[2], (dev_t)a[3]));
    if (!error) {
        error = result(fchownat(parent, name, (uid_t)a[4], (gid_t)a[5], AT_SYMLINK_NOFOLLOW));
    } else if (error == -EEXIST) {
        error = same_device(parent, name, (mode_t)a[2], (dev_t)a[3]);
    } else if (error == -EPERM && !S_ISFIFO(a[2]) && a[0] != MB_HOST) {
        error = mb_child_bind_device(child, text(a[6]), a[0], text(a[1]), (mode_t)a[2], (dev_t)a[3]);
    }
    close(parent);
    return error;
}

/* symlink(target, root, path): the directory must exist; an existing link or file stays. */
int mb_child_op_symlink(struct mb_child *child, const uint64_t *a) {
    char copy[PATH_MAX];
    const char *name;
    int parent = open_parent(child, a[1], text(a[2]), copy, &name);
    if (parent < 0) {
        return -errno;
    }
    int error = result(symlinkat(text(a[0]), parent, name));
    close(parent);
    return error == -EEXIST ? 0 : error;
}

static int write_all(int fd, struct mb_bytes bytes) {
    ssize_t written = write(fd, bytes.data, bytes.size);
    return written < 0 ? -errno : (size_t)written == bytes.size ? 0 : -EIO;
}

/* Data for the kernel must not go to a file in the place of the kernel's: CVE-2025-52881. */
static int write_to_proc(int fd, struct mb_bytes bytes) {
    return mb_child_is_on(fd, PROC_SUPER_MAGIC) ? write_all(fd, bytes) : -EMEDIUMTYPE;
}

/* write_proc(root, path, bytes): write to a file of procfs, in one write, as the kernel requires. */
int mb_child_op_write_proc(struct mb_child *child, const uint64_t *a) {
    int fd = mb_child_open_in(child, a[0], text(a[1]), O_WRONLY);
    if (fd < 0) {
        return -errno;
    }
    int error = write_to_proc(fd, mb_plan_bytes(child->plan, a[2]));
    close(fd);
    return error;
}

/* write_fd(fd, bytes): write to a file that only the parent may open. */
int mb_child_op_write_fd(struct mb_child *child, const uint64_t *a) {
    return write_all(slot(child, a[0]), mb_plan_bytes(child->plan, a[1]));
}

/* label(file, bytes): set a label for what this process makes or becomes, through a file of /proc/self/attr. */
int mb_child_op_label(struct mb_child *child, const uint64_t *a) {
    return write_to_proc(slot(child, a[0]), mb_plan_bytes(child->plan, a[1]));
}

/* label_file(root, path, bytes): set a file's SELinux label. */
int mb_child_op_label_file(struct mb_child *child, const uint64_t *a) {
    struct mb_bytes label = mb_plan_bytes(child->plan, a[2]);
    int fd = mb_child_open_in(child, a[0], text(a[1]), O_RDONLY);
    if (fd < 0) {
        return -errno;
    }
    int error = result(fsetxattr(fd, "security.selinux", label.data, label.size, 0));
    close(fd);
    return error;
}

/* chdir(path): a magic link must not lead to a directory outside through a leaked descriptor (CVE-2024-21626). */
int mb_child_op_chdir(struct mb_child *child, const uint64_t *a) {
    (void)child;
    int fd = mb_openat2(AT_FDCWD, text(a[0]), O_PATH | O_DIRECTORY | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
    if (fd < 0) {
        return -errno;
    }
    int error = result(fchdir(fd));
    close(fd);
    return error;
}
