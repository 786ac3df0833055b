/* Copy a directory into a new file system, for a tmpfs that begins with the content of what it covers. Rules as in
 * child.c. */
#include "child/operations.h"
#include "syscalls.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

enum { DEPTH_MAX = 200 }; /* of directories: a stack frame and two descriptors each */

/* Filled in by getdents64; the C library's readdir allocates. */
struct entry {
    uint64_t inode;
    int64_t next;
    unsigned short size;
    unsigned char type;
    char name[];
};

static int copy_directory(int from, int to, int depth);

/* Owner before mode, because a change of owner clears set-uid. Ids that aren't mapped here are ignored. */
static int copy_attributes(int to, const char *name, const struct stat *status) {
    const struct timespec times[] = {status->st_atim, status->st_mtim};
    if (fchownat(to, name, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW) && errno != EINVAL && errno != EPERM) {
        return -errno;
    }
    if (!S_ISLNK(status->st_mode) && fchmodat(to, name, status->st_mode & 07777, 0)) {
        return -errno;
    }
    return result(syscall(SYS_utimensat, to, name, times, AT_SYMLINK_NOFOLLOW));
}

static int copy_file(int from, int to, const char *name) {
    int source = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int copy = source < 0 ? -1 : openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int error = copy < 0 ? -errno : 0;
    ssize_t size = 1;
    while (!error && size) {
        size = sendfile(copy, source, NULL, 1 << 20);
        error = size < 0 ? -errno : 0;
    }
    if (copy >= 0) {
        close(copy);
    }
    if (source >= 0) {
        close(source);
    }
    return error;
}

static int copy_link(int from, int to, const char *name) {
    char target[PATH_MAX];
    ssize_t size = readlinkat(from, name, target, sizeof target - 1);
    if (size < 0) {
        return -errno;
    }
    target[size] = '\0';
    return result(symlinkat(target, to, name));
}

static int copy_below(int from, int to, const char *name, int depth) {
    int error = result(mkdirat(to, name, 0700));
    int source = error ? -1 : openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int copy = source < 0 ? -1 : openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (!error) {
        error = copy < 0 ? -errno : copy_directory(source, copy, depth);
    }
    if (copy >= 0) {
        close(copy);
    }
    if (source >= 0) {
        close(source);
    }
    return error;
}

static int copy_entry(int from, int to, const char *name, int depth) {
    struct stat status;
    if (fstatat(from, name, &status, AT_SYMLINK_NOFOLLOW)) {
        return -errno;
    }
    int error;
    switch (status.st_mode & S_IFMT) {
    case S_IFDIR:
        error = copy_below(from, to, name, depth);
        break;
    case S_IFREG:
        error = copy_file(from, to, name);
        break;
    case S_IFLNK:
        error = copy_link(from, to, name);
        break;
    default:
        error = result(mknodat(to, name, status.st_mode, status.st_rdev));
        if (error == -EPERM) {
            return 0; /* a device, in a user namespace, where it couldn't be opened either */
        }
    }
    return error ? error : copy_attributes(to, name, &status);
}

static int copy_directory(int from, int to, int depth) {
    _Alignas(struct entry) char buffer[2048];
    if (depth > DEPTH_MAX) {
        return -ELOOP;
    }
    for (;;) {
        long size = syscall(SYS_getdents64, from, buffer, sizeof buffer);
        if (size <= 0) {
            return result(size);
        }
        for (long at = 0; at < size;) {
            const struct entry *entry = (const struct entry *)(const void *)(buffer + at);
            at += entry->size;
            if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0) {
                int error = copy_entry(from, to, entry->name, depth + 1);
                if (error) {
                    return error;
                }
            }
        }
    }
}

int mb_child_copy(int from, int to) { return copy_directory(from, to, 0); }
