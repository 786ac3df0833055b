/* The operation home: set HOME for a process whose environment doesn't. Rules as in child.c. */
#include "child/operations.h"
#include "syscalls.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define HOME_PREFIX "HOME="

enum { NAME, PASSWORD, UID, GID, COMMENT, DIRECTORY };

enum { PASSWD_BYTES_MAX = 1 << 24 }; /* limits how much an image can make us read */

/* The position in a line of passwd(5). */
struct entry {
    unsigned field;
    bool wanted;  /* it may still be the user's line */
    bool numeric; /* the current field is a number */
    uint64_t number;
    size_t length; /* of the directory */
};

static const struct entry NEW_LINE = {.wanted = true};

static void end_field(struct entry *entry, uint64_t uid) {
    if (entry->field == UID) {
        entry->wanted = entry->wanted && entry->numeric && entry->number == uid;
    } else if (entry->field == GID) {
        entry->wanted = entry->wanted && entry->numeric;
    }
    entry->field++;
    entry->numeric = false;
    entry->number = 0;
}

static void add_byte(struct entry *entry, char byte, char *directory, size_t size) {
    if (entry->field == NAME && byte == '#') {
        entry->wanted = false;
    } else if (entry->field == UID || entry->field == GID) {
        bool digit = byte >= '0' && byte <= '9';
        entry->numeric = digit && (entry->numeric || !entry->number) && entry->number <= UINT32_MAX;
        entry->number = entry->numeric ? entry->number * 10 + (uint64_t)(byte - '0') : UINT64_MAX;
    } else if (entry->field == DIRECTORY) {
        if (entry->length < size) {
            directory[entry->length++] = byte;
        } else {
            entry->wanted = false;
        }
    }
}

/* Find the directory of the first entry of `uid`, of at most `size` bytes; return its length, 0 if there is none.
 */
static size_t find_home(int passwd, uint64_t uid, char *directory, size_t size) {
    struct entry entry = NEW_LINE;
    char buffer[4096];
    ssize_t got = 1;
    for (size_t total = 0; got > 0 && total < PASSWD_BYTES_MAX; total += (size_t)got) {
        got = read(passwd, buffer, sizeof buffer);
        if (got <= 0) {
            buffer[0] = '\n'; /* the last line may lack its newline */
        }
        for (ssize_t i = 0; i < (got > 0 ? got : 1); i++) {
            if (buffer[i] != ':' && buffer[i] != '\n') {
                add_byte(&entry, buffer[i], directory, size);
                continue;
            }
            end_field(&entry, uid);
            if (buffer[i] == '\n') {
                if (entry.wanted && entry.field > GID) {
                    return entry.length;
                }
                entry = NEW_LINE;
            }
        }
    }
    return 0;
}

/* home(uid): look the user up in the container's own /etc/passwd, whatever is mounted there, and use the directory
 * for an empty HOME in the command's environment. A user without an entry gets "/", as under runc. */
int mb_child_op_home(struct mb_child *child, const uint64_t *a) {
    char *home = child->home + strlen(strcpy(child->home, HOME_PREFIX));
    size_t length = 0;
    /* Don't block: it may be a FIFO. */
    int passwd =
        mb_openat2(AT_FDCWD, "/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
    struct stat found;
    if (passwd >= 0) {
        if (!fstat(passwd, &found) && S_ISREG(found.st_mode)) {
            length = find_home(passwd, a[0], home, sizeof child->home - sizeof HOME_PREFIX);
        }
        close(passwd);
    }
    if (!length) {
        home[length++] = '/';
    }
    home[length] = '\0';
    return 0;
}

void mb_child_put_home(const struct mb_child *child, char **environment) {
    for (; child->home[0] && *environment; environment++) {
        if (!strcmp(*environment, HOME_PREFIX)) {
            *environment = (char *)(uintptr_t)child->home;
        }
    }
}
