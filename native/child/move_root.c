/* The operation move_root: change the root without pivot_root(2). Rules as in child.c. */
#include "child/operations.h"
#include "syscalls.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>

enum { MOUNTS_MAX = 1 << 16, LINE = 3 * PATH_MAX };

/* proc_pid_mountinfo(5), read line by line. */
struct lines {
    int fd, error;
    size_t filled, at;
    char buffer[2 * LINE];
};

/* The next line, without its newline; NULL after the last, or on an error. A line that is too long is split. */
static char *next_line(struct lines *lines) {
    for (;;) {
        char *begin = lines->buffer + lines->at, *end = memchr(begin, '\n', lines->filled - lines->at);
        if (end) {
            *end = '\0';
            lines->at = (size_t)(end + 1 - lines->buffer);
            return begin;
        }
        memmove(lines->buffer, begin, lines->filled -= lines->at);
        lines->at = 0;
        if (lines->filled == sizeof lines->buffer) {
            lines->filled = 0;
        }
        ssize_t got = read(lines->fd, lines->buffer + lines->filled, sizeof lines->buffer - lines->filled);
        if (got <= 0) {
            lines->error = got < 0 ? -errno : 0;
            return NULL;
        }
        lines->filled += (size_t)got;
    }
}

/* The next word of a line; NULL after the last. */
static char *next_word(char **line) {
    char *word = *line;
    size_t length = strcspn(word, " ");
    *line = word + length + (word[length] == ' ');
    word[length] = '\0';
    return length ? word : NULL;
}

/* Decode, in place, \040 and the like, which the kernel writes for blanks. */
static void unescape(char *path) {
    char *to = path;
    for (; *path; path++) {
        if (path[0] == '\\' && path[1] && path[2] && path[3]) {
            *to++ = (char)((path[1] - '0') << 6 | (path[2] - '0') << 3 | (path[3] - '0'));
            path += 3;
        } else {
            *to++ = *path;
        }
    }
    *to = '\0';
}

static bool is_below(const char *path, const char *top) {
    size_t length = strlen(top);
    return !strncmp(path, top, length) && (!path[length] || path[length] == '/' || top[length - 1] == '/');
}

/* Where a line says that a whole procfs or sysfs is mounted; NULL otherwise. */
static char *shown_at(char *line) {
    char *root = NULL, *place = NULL, *word;
    for (int field = 1; (word = next_word(&line)) && strcmp(word, "-") != 0; field++) {
        root = field == 4 ? word : root;
        place = field == 5 ? word : place;
    }
    char *fstype = next_word(&line);
    if (!place || strcmp(root, "/") != 0 || !fstype || (strcmp(fstype, "proc") != 0 && strcmp(fstype, "sysfs") != 0)) {
        return NULL;
    }
    unescape(place);
    return place;
}

/* Unmount the host's procfs and sysfs in this mount namespace, or cover them if they are locked: while one is fully
 * visible, a user namespace in the container may mount another one without our masks. */
static int hide_kernel(int root) {
    static struct lines lines;
    char link[32] = "/proc/self/fd/", top[PATH_MAX], digits[12];
    size_t count = 0;
    for (unsigned number = (unsigned)root; !count || number; number /= 10) {
        digits[count++] = (char)('0' + number % 10);
    }
    for (char *end = link + strlen(link); count; *end = '\0') {
        *end++ = digits[--count];
    }
    /* Held open, since the path vanishes with the host's procfs. */
    int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
    ssize_t size = self < 0 ? -1 : readlinkat(AT_FDCWD, link, top, sizeof top - 1);
    if (size < 0) {
        return errno == ENOENT ? 0 : -errno; /* there is no procfs */
    }
    top[size] = '\0';
    int error = 0;
    bool done = false;
    for (unsigned covered = 0, rounds = 0; !done && !error && rounds < MOUNTS_MAX; rounds++) {
        lines = (struct lines){.fd = openat(self, "mountinfo", O_RDONLY | O_CLOEXEC)};
        if (lines.fd < 0) {
            error = -errno;
            break;
        }
        char *line, *place = NULL;
        for (unsigned seen = 0; !place && (line = next_line(&lines));) {
            char *found = shown_at(line);
            place = found && !is_below(found, top) && seen++ == covered ? found : NULL;
        }
        close(lines.fd);
        error = place ? 0 : lines.error;
        done = !place;
        if (place && umount2(place, MNT_DETACH)) {
            error = mount("tmpfs", place, "tmpfs", 0, NULL) ? -errno : 0;
            covered++;
        }
    }
    close(self);
    return error ? error : done ? 0 : -ELOOP; /* never ignore one that is still visible */
}

/* move_root(root): for hosts where / is the initramfs, so that pivot_root fails. The host's root stays below,
 * without its procfs and sysfs. */
int mb_child_op_move_root(struct mb_child *child, const uint64_t *a) {
    int error = hide_kernel(slot(child, a[0]));
    if (error) {
        return error;
    }
    if (fchdir(slot(child, a[0])) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".")) {
        return -errno;
    }
    return result(chdir("/"));
}
