/* Operations on files and directories, and the paths that all others go through.
 * Rules as in child.c. */
#include "child_operations.h"
#include "syscalls.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

int mb_child_open_in(const struct mb_child *child, uint64_t root, const char *path, int flags) {
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

int mb_child_make_directories(const struct mb_child *child, uint64_t root, char *path, mode_t mode) {
    int fd = mb_child_open_in(child, root, path, O_PATH | O_DIRECTORY);
    if (fd >= 0 || errno != ENOENT) {
        return fd;
    }
    int parent = mb_child_open_in(child, root, "/", O_PATH | O_DIRECTORY);
    char *component = path;
    while (parent >= 0) {
        component += strspn(component, "/");
        size_t length = strcspn(component, "/");
        if (!length) {
            return parent;
        }
        char after = component[length];
        component[length] = '\0';
        fd = mb_child_open_in(child, root, path, O_PATH | O_DIRECTORY);
        if (fd < 0 && errno == ENOENT && (!mkdirat(parent, component, mode) || errno == EEXIST)) {
            fd = mb_child_open_in(child, root, path, O_PATH | O_DIRECTORY);
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
    int parent = mb_child_make_directories(child, root, *path ? path : top, 0755);
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
    int link = mb_child_open_in(child, root, path, O_PATH | O_NOFOLLOW);
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

int mb_child_open_target(const struct mb_child *child, uint64_t root, const char *path, bool directory) {
    int fd = mb_child_open_in(child, root, path, O_PATH);
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
        return mb_child_make_directories(child, root, copy, 0755);
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

/* open(path, flags, slot) */
int mb_child_op_open(struct mb_child *child, const uint64_t *a) {
    return mb_child_fill(child, a[2], open(text(a[0]), (int)a[1] | O_CLOEXEC));
}

/* open_in(root, path, flags, slot) */
int mb_child_op_open_in(struct mb_child *child, const uint64_t *a) {
    return mb_child_fill(child, a[3], mb_child_open_in(child, a[0], text(a[1]), (int)a[2]));
}

/* mkdir(root, path, mode): with its parents; there already is fine. */
int mb_child_op_mkdir(struct mb_child *child, const uint64_t *a) {
    char copy[PATH_MAX];
    size_t length = strlen(text(a[1]));
    if (length >= sizeof copy) {
        return -ENAMETOOLONG;
    }
    memcpy(copy, text(a[1]), length + 1);
    int fd = mb_child_make_directories(child, a[0], copy, (mode_t)a[2]);
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
    return mb_child_open_in(child, root, *copy ? copy : "/", O_PATH | O_DIRECTORY);
}

/* What is at a device's place must be that device: config-linux.md, "Devices". */
static int same_device(int parent, const char *name, mode_t mode, dev_t device) {
    struct stat found;
    if (fstatat(parent, name, &found, AT_SYMLINK_NOFOLLOW) < 0) {
        return -errno;
    }
    return (found.st_mode & S_IFMT) == (mode & S_IFMT) && (S_ISFIFO(mode) || found.st_rdev == device) ? 0 : -EEXIST;
}

/* mknod(root, path, mode and type, device, uid, gid): one that is there stays as it is. In a user
 * namespace that isn't the host's nobody may make devices: there it is the host's of that path. */
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
        error = mb_child_bind(child, text(a[1]), a[0], text(a[1]));
    }
    close(parent);
    return error;
}

/* symlink(target, root, path): the directory must be there; so may the link, or what is in its place. */
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

/* write_file(root, path, bytes): in one write, as files of /proc want it. */
int mb_child_op_write_file(struct mb_child *child, const uint64_t *a) {
    int fd = mb_child_open_in(child, a[0], text(a[1]), O_WRONLY);
    if (fd < 0) {
        return -errno;
    }
    int error = write_all(fd, mb_plan_bytes(child->plan, a[2]));
    close(fd);
    return error;
}

/* write_fd(fd, bytes): to a file that only the parent may open. */
int mb_child_op_write_fd(struct mb_child *child, const uint64_t *a) {
    return write_all(slot(child, a[0]), mb_plan_bytes(child->plan, a[1]));
}

/* label(file, bytes): a label for what this process makes or becomes, in a file of /proc/self/attr. */
int mb_child_op_label(struct mb_child *child, const uint64_t *a) {
    return write_all(slot(child, a[0]), mb_plan_bytes(child->plan, a[1]));
}

/* label_file(root, path, bytes): of SELinux. */
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

/* chdir(path): no magic link may lead to a directory outside that a leaked descriptor holds
 * open (CVE-2024-21626). */
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
