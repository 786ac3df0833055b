#include "extension/small_files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { READ = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC };
enum { WRITE_NEW = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC };
enum { ATTRIBUTES_BYTES = 1024, SECOND_NS = 1000000000 };

static const char *next_name(const char *name) { return name + strlen(name) + 1; }

/* Security modules give each file an attribute of their own, which no image has. */
static int has_attributes(int fd) {
    static const char security[] = "security.";
    char names[ATTRIBUTES_BYTES];
    ssize_t length = flistxattr(fd, names, sizeof names);
    if (length < 0) {
        return errno != ENOTSUP;
    }
    for (const char *name = names; name < names + length; name = next_name(name)) {
        if (strncmp(name, security, sizeof security - 1) != 0 || strcmp(name, "security.capability") == 0) {
            return 1;
        }
    }
    return 0;
}

static int read_all(int fd, char *to, size_t size) {
    while (size) {
        ssize_t length = read(fd, to, size);
        if (length < 0 && errno == EINTR) {
            continue;
        }
        if (length <= 0) {
            return -1;
        }
        to += length;
        size -= (size_t)length;
    }
    return 0;
}

static int write_all(int fd, const char *from, size_t size) {
    while (size) {
        ssize_t length = write(fd, from, size);
        if (length < 0 && errno == EINTR) {
            continue;
        }
        if (length <= 0) {
            return -1;
        }
        from += length;
        size -= (size_t)length;
    }
    return 0;
}

/* Tell whether an open file is small and plain as far as its status says. */
static int is_small(int fd, struct mb_file *file) {
    return mb_file_of(fd, "", AT_EMPTY_PATH, file) == 0 && S_ISREG(file->mode) && file->links == 1 &&
           file->size <= MB_SMALL_BYTES;
}

static int read_plain(int fd, const struct mb_file *file, char *content) {
    struct mb_file after;
    return !has_attributes(fd) && read_all(fd, content, file->size) == 0 &&
           mb_file_of(fd, "", AT_EMPTY_PATH, &after) == 0 && memcmp(file, &after, sizeof after) == 0;
}

uint32_t mb_read_small_files(int dir_fd, const char *names, uint32_t count, struct mb_small_file *files, char *content,
                             size_t size) {
    for (uint32_t index = 0; index < count; index++, names = next_name(names)) {
        struct mb_small_file *found = &files[index];
        found->plain = 0;
        int fd = openat(dir_fd, names, READ);
        if (fd < 0) {
            continue;
        }
        if (is_small(fd, &found->file)) {
            if (found->file.size > size) {
                close(fd);
                return index;
            }
            if (read_plain(fd, &found->file, content)) {
                found->plain = 1;
                content += found->file.size;
                size -= found->file.size;
            }
        }
        close(fd);
    }
    return count;
}

/* The owner comes first, because chown clears set-user-ID bits. */
static int fill(int fd, const struct mb_new_file *file, const char *content) {
    struct timespec time = {.tv_sec = file->modified_ns / SECOND_NS, .tv_nsec = file->modified_ns % SECOND_NS};
    if (time.tv_nsec < 0) {
        time.tv_sec--;
        time.tv_nsec += SECOND_NS;
    }
    const struct timespec times[2] = {time, time};
    const int keeps_owner = file->uid == (uint32_t)-1 && file->gid == (uint32_t)-1;
    return !has_attributes(fd) && write_all(fd, content, file->size) == 0 &&
           (keeps_owner || fchown(fd, file->uid, file->gid) == 0) && fchmod(fd, file->mode) == 0 &&
           futimens(fd, times) == 0;
}

uint32_t mb_write_small_files(int dir_fd, const char *names, uint32_t count, const struct mb_new_file *files,
                              const char *content) {
    for (uint32_t index = 0; index < count; index++, names = next_name(names)) {
        int fd = openat(dir_fd, names, WRITE_NEW, 0600);
        if (fd < 0) {
            return index;
        }
        int filled = fill(fd, &files[index], content);
        if (close(fd) || !filled) {
            unlinkat(dir_fd, names, 0);
            return index;
        }
        content += files[index].size;
    }
    return count;
}
