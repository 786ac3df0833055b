#include "extension/list.h"
#include "directory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int64_t in_ns(struct timespec time) { return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec; }

int mb_file_of(int dir_fd, const char *name, int flags, struct mb_file *file) {
    struct stat status;
    if (fstatat(dir_fd, name, &status, flags)) {
        return -errno;
    }
    *file = (struct mb_file){
        .device = status.st_dev,
        .inode = status.st_ino,
        .size = (uint64_t)status.st_size,
        .modified_ns = in_ns(status.st_mtim),
        .changed_ns = in_ns(status.st_ctim),
        .mode = status.st_mode,
        .uid = status.st_uid,
        .gid = status.st_gid,
        .links = (uint32_t)status.st_nlink,
        .node = status.st_rdev,
    };
    return 0;
}

int mb_list(int dir_fd, struct mb_file *files, char *names, uint32_t *size) {
    _Alignas(struct entry) char buffer[MB_LIST_BYTES];
    long length;
    int count = 0;
    *size = 0;
    while (!count && (length = syscall(SYS_getdents64, dir_fd, buffer, sizeof buffer)) != 0) {
        if (length < 0) {
            return -errno;
        }
        for (long at = 0; at < length;) {
            const struct entry *entry = (const void *)(buffer + at);
            at += entry->size;
            if (is_dots(entry->name)) {
                continue;
            }
            int error = mb_file_of(dir_fd, entry->name, AT_SYMLINK_NOFOLLOW, &files[count]);
            if (error == -ENOENT) {
                continue;
            }
            if (error) {
                return error;
            }
            size_t name = strlen(entry->name) + 1;
            memcpy(names + *size, entry->name, name);
            *size += (uint32_t)name;
            count++;
        }
    }
    return count;
}
