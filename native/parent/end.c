/* Operations of a container's end. See end.h; each does what its namesake in Python does, or fails. */
#include "parent/end.h"
#include "remove.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    FILE_BYTES = 4096,  /* of the cgroup files that are read here */
    BUSY_TRIES = 100,   /* a cgroup stays busy for a moment after its last process was reaped */
    REMOVE_TRIES = 3,   /* another command may still write into the container's directory, such as `stop` */
    TAIL_BYTES = 64,    /* the end of an event */
    STATE_BYTES = 1024, /* what is new in state.json */
    NANOSECONDS = 1000000000,
};

#define STATE "state.json"

static const char *text(uint64_t argument) { return (const char *)(uintptr_t)argument; }

static char **vector(uint64_t argument) { return (char **)(uintptr_t)argument; }

/* 0, or -errno; that there is nothing to remove is no error. */
static int removed(int result) { return !result || errno == ENOENT || errno == ENOTDIR ? 0 : -errno; }

/* ---- conditions ------------------------------------------------------------------------------ */

/* 0 if a file is the one with this inode and time of change, else -errno. */
static int check_same(int dir_fd, const char *path, uint64_t inode, uint64_t changed_ns) {
    struct stat found;
    if (fstatat(dir_fd, path, &found, AT_SYMLINK_NOFOLLOW)) {
        return -errno;
    }
    uint64_t found_ns = (uint64_t)found.st_ctim.tv_sec * NANOSECONDS + (uint64_t)found.st_ctim.tv_nsec;
    return found.st_ino == inode && found_ns == changed_ns ? 0 : -ESTALE;
}

/* A file is the one that the start wrote. `rename`, `update`, `pause` and others replace state.json. */
static int expect_file(const uint64_t *argument, struct mb_outcome *ended) {
    (void)ended;
    return check_same(AT_FDCWD, text(argument[0]), argument[1], argument[2]);
}

static int expect_none(const uint64_t *argument, struct mb_outcome *ended) {
    (void)ended;
    struct stat found;
    if (!fstatat(AT_FDCWD, text(argument[0]), &found, AT_SYMLINK_NOFOLLOW)) {
        return -EEXIST;
    }
    return errno == ENOENT ? 0 : -errno;
}

/* Read a small file to its end; the length, or -errno. */
static ssize_t read_small(const char *path, char content[FILE_BYTES]) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    ssize_t length = read(fd, content, FILE_BYTES - 1);
    int error = errno;
    close(fd);
    if (length == FILE_BYTES - 1) {
        return -EFBIG;
    }
    content[length < 0 ? 0 : length] = '\0';
    return length < 0 ? -error : length;
}

/* The number after `key` in a cgroup's file is 0, or there is no such file. */
static int expect_zero(const uint64_t *argument, struct mb_outcome *ended) {
    (void)ended;
    char content[FILE_BYTES];
    ssize_t length = read_small(text(argument[0]), content);
    if (length < 0) {
        return length == -ENOENT ? 0 : (int)length;
    }
    size_t size = strlen(text(argument[1]));
    for (char *next = content, *line; (line = strsep(&next, "\n"));) {
        if (!strncmp(line, text(argument[1]), size) && line[size] == ' ' && strcmp(line + size, " 0")) {
            return -ERANGE;
        }
    }
    return 0;
}

/* ---- measurements ---------------------------------------------------------------------------- */

/* The number after `key`, or the whole file's if that is NULL; -1 if there is none. */
static int64_t number_in(const char *path, const char *key) {
    char content[FILE_BYTES];
    if (read_small(path, content) < 0) {
        return -1;
    }
    const char *found = content;
    size_t size = key ? strlen(key) : 0;
    for (char *next = content, *line; key && (line = strsep(&next, "\n"));) {
        found = strncmp(line, key, size) || line[size] != ' ' ? "" : line + size + 1;
        if (*found) {
            break;
        }
    }
    char *rest;
    long long number = strtoll(found, &rest, 10);
    return rest == found || number < 0 ? -1 : number;
}

static int measure_memory(const uint64_t *argument, struct mb_outcome *ended) {
    ended->memory_peak = number_in(text(argument[0]), NULL);
    return 0;
}

static int measure_cpu(const uint64_t *argument, struct mb_outcome *ended) {
    int64_t used = number_in(text(argument[0]), text(argument[1]));
    ended->cpu_ns = used < 0 ? -1 : used * (int64_t)argument[2];
    return 0;
}

/* ---- undo ------------------------------------------------------------------------------------ */

/* The cgroups of a container whose first process has ended are empty. If one isn't, or has others below, it fails. */
static int kill_cgroup(const uint64_t *argument, struct mb_outcome *ended) {
    (void)ended;
    for (char **label = vector(argument[0]); *label; label++) {
        const char *colon = strchr(*label, ':');
        char path[PATH_MAX], pids[FILE_BYTES];
        struct stat found;
        if (!colon || snprintf(path, sizeof path, "%s/cgroup.procs", colon + 1) >= PATH_MAX) {
            return -ENAMETOOLONG;
        }
        ssize_t length = read_small(path, pids);
        if (length == -ENOENT) {
            continue;
        }
        if (length < 0 || stat(colon + 1, &found)) {
            return length < 0 ? (int)length : -errno;
        }
        if (length || found.st_nlink > 2) {
            return -EBUSY;
        }
    }
    return 0;
}

static int cgroup_rmdir(const uint64_t *argument, struct mb_outcome *ended) {
    (void)ended;
    int error;
    for (int tries = BUSY_TRIES; (error = removed(rmdir(text(argument[0])))) == -EBUSY && tries; tries--) {
        nanosleep(&(struct timespec){.tv_nsec = NANOSECONDS / 1000}, NULL);
    }
    return error;
}

static int remove_file(const uint64_t *argument, struct mb_outcome *ended) {
    (void)ended;
    return removed(unlink(text(argument[0])));
}

/* Remove a link in `dir_fd` if its target is a container's id. */
static int unlink_own(int dir_fd, const char *name, const char *id) {
    char target[NAME_MAX + 1];
    ssize_t length = readlinkat(dir_fd, name, target, sizeof target);
    if (length < 0 || (size_t)length != strlen(id) || memcmp(target, id, (size_t)length)) {
        return length < 0 ? removed(-1) : 0;
    }
    return removed(unlinkat(dir_fd, name, 0));
}

static int release_ids(const uint64_t *argument, struct mb_outcome *ended) {
    (void)ended;
    return unlink_own(AT_FDCWD, text(argument[0]), text(argument[1]));
}

/* The others know a member that has names; Python tells them. */
static int leave_network(const uint64_t *argument, struct mb_outcome *ended) {
    (void)ended;
    const char *address = text(argument[1]), *id = text(argument[2]);
    char lease[PATH_MAX], names[PATH_MAX];
    struct stat found;
    if (snprintf(lease, sizeof lease, "leases/%s", address) >= PATH_MAX ||
        snprintf(names, sizeof names, "names/%s", id) >= PATH_MAX) {
        return -ENAMETOOLONG;
    }
    int state = open(text(argument[0]), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (state < 0) {
        return removed(-1);
    }
    int error = -EEXIST;
    if (fstatat(state, names, &found, AT_SYMLINK_NOFOLLOW)) {
        error = flock(state, LOCK_EX) ? -errno : unlink_own(state, lease, id);
    }
    close(state);
    return error;
}

/* ---- what else ------------------------------------------------------------------------------- */

/* Replace the live file's last line, as minibox/engine/state/live_file.py writes it. */
static int note_ended(const uint64_t *argument, struct mb_outcome *ended) {
    char line[128];
    int length =
        snprintf(line, sizeof line,
                 "{\"Kind\": \"process\",\"Format\": 1,\"Pid\": -1,\"Supervisor\": 0,\"Status\": %d}\n", ended->status);
    ssize_t written = pwrite(ended->claim, line, (size_t)length, (off_t)argument[0]);
    return written == length ? 0 : written < 0 ? -errno : -ENOSPC;
}

/* Remove a container's directory. What minibox needs to remove the rest, and to tell of it, goes last: what the
 * container wrote may resist. */
static int remove_files(const uint64_t *argument, struct mb_outcome *ended) {
    (void)ended;
    int parent = open(text(argument[0]), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0) {
        return -errno;
    }
    int fd = openat(parent, text(argument[1]), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int error = fd < 0 ? -errno : mb_remove_inside(fd, vector(argument[2]), MB_REMOVE_DEPTH);
    if (fd >= 0) {
        close(fd);
    }
    for (int tries = 0; tries < REMOVE_TRIES && (!error || error == -ENOTEMPTY); tries++) {
        error = mb_remove(parent, text(argument[1]), MB_REMOVE_DEPTH);
        if (!error) {
            break;
        }
    }
    close(parent);
    return error;
}

/* A number as a member of JSON, in units of `divisor`; null if it is negative. */
static void add_number(char *place, size_t size, const char *key, int64_t number, int64_t divisor) {
    size_t used = strlen(place);
    if (number < 0) {
        snprintf(place + used, size - used, ",\n \"%s\": null", key);
    } else if (divisor == 1) {
        snprintf(place + used, size - used, ",\n \"%s\": %lld", key, (long long)number);
    } else {
        long long whole = number / divisor, part = number % divisor;
        snprintf(place + used, size - used, ",\n \"%s\": %lld.%09lld", key, whole, part);
    }
}

/* What is new in state.json; the same members as `settle` gives it. Nothing was killed for its memory, or refused. */
static void describe(const struct mb_outcome *ended, char text_of[STATE_BYTES]) {
    int64_t finished_ns = (int64_t)ended->finished.tv_sec * NANOSECONDS + ended->finished.tv_nsec;
    snprintf(text_of, STATE_BYTES,
             ",\n \"Status\": \"exited\",\n \"Pid\": 0,\n \"ExitCode\": %d,\n \"Signal\": %d,\n \"TimedOut\": %s,\n"
             " \"Relayed\": %d,\n \"LogLost\": %llu,\n \"OOMKilled\": false,\n \"OOMKills\": 0,\n \"Refused\": 0,\n"
             " \"DiskFull\": false",
             ended->status, ended->signal, ended->timed_out ? "true" : "false", ended->relayed,
             (unsigned long long)ended->log_lost);
    add_number(text_of, STATE_BYTES, "MemoryPeak", ended->memory_peak, 1);
    add_number(text_of, STATE_BYTES, "CpuTime", ended->cpu_ns, NANOSECONDS);
    add_number(text_of, STATE_BYTES, "Finished", finished_ns, NANOSECONDS);
    strcat(text_of, "\n}\n");
}

static int write_all(int fd, const char *data) {
    for (size_t left = strlen(data); left;) {
        ssize_t written = write(fd, data, left);
        if (written < 0 && errno != EINTR) {
            return -errno;
        }
        data += written < 0 ? 0 : written;
        left -= written < 0 ? 0 : (size_t)written;
    }
    return 0;
}

/* Replace a directory's state.json, so that it survives a power loss. */
static int replace_state(int directory, const char *begin, const char *end) {
    char temporary[64];
    uint32_t chance = 0;
    if (getrandom(&chance, sizeof chance, 0) < 0) {
        return -errno;
    }
    snprintf(temporary, sizeof temporary, "." STATE ".%d.%08x", (int)getpid(), chance);
    int fd = openat(directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -errno;
    }
    int error = write_all(fd, begin);
    error = error ? error : write_all(fd, end);
    error = error ? error : fdatasync(fd) ? -errno : 0;
    close(fd);
    error = error ? error : renameat(directory, temporary, directory, STATE) ? -errno : 0;
    if (error) {
        unlinkat(directory, temporary, 0);
        return error;
    }
    return fsync(directory) ? -errno : 0;
}

/* Write how a container ended that is kept, with the lock that whoever changes its state holds. */
static int note_state(const uint64_t *argument, struct mb_outcome *ended) {
    char end[STATE_BYTES];
    describe(ended, end);
    int parent = open(text(argument[0]), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0) {
        return -errno;
    }
    int directory = openat(parent, text(argument[1]), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), error = 0;
    if (directory < 0 || flock(directory, LOCK_EX)) {
        error = -errno;
    }
    error = error ? error : check_same(directory, STATE, argument[3], argument[4]);
    error = error ? error : replace_state(directory, text(argument[2]), end);
    error = error ? error : fsync(parent) ? -errno : 0;
    if (directory >= 0) {
        close(directory);
    }
    close(parent);
    return error;
}

/* Free the names of a container: links to its id. */
static int drop_names(const uint64_t *argument, struct mb_outcome *ended) {
    (void)ended;
    DIR *names = opendir(text(argument[0]));
    for (struct dirent *each; names && (each = readdir(names));) {
        if (each->d_type == DT_LNK || each->d_type == DT_UNKNOWN) {
            unlink_own(dirfd(names), each->d_name, text(argument[1]));
        }
    }
    if (names) {
        closedir(names);
    }
    return 0;
}

/* The time of an event, and all that follows the container's attributes. */
static struct iovec event_tail(char tail[TAIL_BYTES], const char *status) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int length =
        snprintf(tail, TAIL_BYTES, "%s}},\"timeNano\": %lld%09ld}\n", status, (long long)now.tv_sec, now.tv_nsec);
    return (struct iovec){tail, (size_t)length};
}

/* Tell that it died and, unless it is kept, was removed, as minibox/engine/state/events.py does: events that can't be
 * written are lost. */
static int note_events(const uint64_t *argument, struct mb_outcome *ended) {
    char tails[2][TAIL_BYTES], status[16];
    snprintf(status, sizeof status, "%d\"", ended->status);
    struct iovec parts[] = {
        {(void *)(uintptr_t)argument[1], strlen(text(argument[1]))},
        event_tail(tails[0], status),
        {(void *)(uintptr_t)argument[2], argument[2] ? strlen(text(argument[2])) : 0},
        event_tail(tails[1], ""),
    };
    struct stat found;
    int flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    int fd = open(text(argument[0]), flags, 0600);
    if (fd >= 0 && !fstat(fd, &found) && S_ISREG(found.st_mode)) {
        ssize_t written = writev(fd, parts, argument[2] ? 4 : 2);
        (void)written;
    }
    if (fd >= 0) {
        close(fd);
    }
    return 0;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int (*const operations[])(const uint64_t *, struct mb_outcome *) = {
#define MB_END(name, arguments) [MB_END_##name] = name,
#include "end.def"
#undef MB_END
};

int mb_end_keeps(const struct mb_plan *plan) {
    for (uint32_t i = 0; i < plan->op_count; i++) {
        if (plan->ops[i].code == MB_END_remove_files) {
            return 0;
        }
    }
    return 1;
}

int mb_end(const struct mb_plan *plan, struct mb_outcome *ended) {
    int error = 0;
    for (uint32_t i = 0; i < plan->op_count && !error; i++) {
        error = operations[plan->ops[i].code](plan->ops[i].argument, ended);
    }
    return error;
}
