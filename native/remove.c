#include "remove.h"
#include "directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_one_of(char *const *names, const char *name) {
    for (; names && *names; names++) {
        if (!strcmp(*names, name)) {
            return 1;
        }
    }
    return 0;
}

/* 0, or -errno. Whoever still writes beside us, such as `stop`, renames and removes files. */
static int gone(int result) { return !result || errno == ENOENT ? 0 : -errno; }

static int remove_entry(int fd, const struct entry *entry, int depth) {
    if (entry->type == DT_DIR || entry->type == DT_UNKNOWN) {
        return mb_remove(fd, entry->name, depth);
    }
    return gone(unlinkat(fd, entry->name, 0));
}

int mb_remove_inside(int fd, char *const *kept, int depth) {
    _Alignas(struct entry) char buffer[4096];
    long size;
    while ((size = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < size;) {
            const struct entry *entry = (const void *)(buffer + at);
            int stays = is_dots(entry->name) || is_one_of(kept, entry->name);
            int error = stays ? 0 : remove_entry(fd, entry, depth);
            if (error) {
                return error;
            }
            at += entry->size;
        }
    }
    return size < 0 ? -errno : 0;
}

int mb_remove(int dir_fd, const char *name, int depth) {
    if (!unlinkat(dir_fd, name, AT_REMOVEDIR) || errno == ENOENT) {
        return 0;
    }
    if (errno == ENOTDIR) {
        return gone(unlinkat(dir_fd, name, 0));
    }
    if (errno != ENOTEMPTY || depth == 0) {
        return errno == ENOTEMPTY ? -ELOOP : -errno;
    }
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return gone(fd);
    }
    int error = mb_remove_inside(fd, NULL, depth - 1);
    close(fd);
    return error ? error : gone(unlinkat(dir_fd, name, AT_REMOVEDIR));
}
