#include "parent/supervisor_exit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_BYTES = 256 };

/* The path of the record until it is complete; returns 0 or -ENAMETOOLONG. */
static int temporary_path(const struct mb_exit *record, char path[PATH_MAX]) {
    return snprintf(path, PATH_MAX, "%s.new", record->path) >= PATH_MAX ? -ENAMETOOLONG : 0;
}

int mb_exit_reserve(struct mb_exit *record) {
    char temporary[PATH_MAX], spaces[EXIT_BYTES];
    int error = temporary_path(record, temporary);
    if (error) {
        return error;
    }
    unlink(temporary); /* left by a start that was killed */
    record->fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    memset(spaces, ' ', sizeof spaces);
    if (record->fd < 0) {
        return -errno;
    }
    ssize_t written = write(record->fd, spaces, sizeof spaces);
    return written == sizeof spaces ? 0 : written < 0 ? -errno : -ENOSPC;
}

/* A rename lasts only once its directory is on the disk. Changes `path`. */
static void sync_directory_of(char *path) {
    char *slash = strrchr(path, '/');
    if (!slash) {
        return;
    }
    *slash = '\0';
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0) {
        fsync(directory);
        close(directory);
    }
}

int mb_exit_relayed(const siginfo_t *how) {
    char path[32], name[32], expected[32];
    int number = how->si_code == CLD_EXITED ? how->si_status - 128 : 0;
    if (number <= 0 || number >= NSIG) {
        return 0;
    }
    snprintf(path, sizeof path, "/proc/%d/comm", (int)how->si_pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    ssize_t length = read(fd, name, sizeof name);
    close(fd);
    int size = snprintf(expected, sizeof expected, MB_RELAYED "%d\n", number);
    return length == size && !memcmp(name, expected, (size_t)size) ? number : 0;
}

int mb_exit_status(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

struct mb_outcome mb_exit_write(struct mb_exit *record, int status, int timed_out, uint64_t log_lost_bytes,
                                int durable) {
    char temporary[PATH_MAX], text[EXIT_BYTES];
    struct mb_outcome ended = {
        .claim = -1,
        .status = mb_exit_status(status),
        .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
        .relayed = record->relayed,
        .timed_out = timed_out,
        .log_lost = log_lost_bytes,
        .memory_peak = -1,
        .cpu_ns = -1,
    };
    clock_gettime(CLOCK_REALTIME, &ended.finished);
    memset(text, ' ', sizeof text); /* JSON allows blanks at the end */
    /* Read by minibox/engine/state/exit_record.py: like all our files it has a kind and a format number. */
    int length = snprintf(
        text, sizeof text,
        "{\"Kind\": \"exit\", \"Format\": 1, \"status\": %d, \"signal\": %d, \"relayed\": %d, \"timed_out\": %s, "
        "\"log_lost_bytes\": %llu, \"finished_ns\": %lld%09ld}",
        ended.status, ended.signal, ended.relayed, timed_out ? "true" : "false", (unsigned long long)log_lost_bytes,
        (long long)ended.finished.tv_sec, ended.finished.tv_nsec);
    text[length] = ' ';
    text[sizeof text - 1] = '\n';
    if (pwrite(record->fd, text, sizeof text, 0) == sizeof text && (!durable || !fsync(record->fd)) &&
        !temporary_path(record, temporary) && !rename(temporary, record->path) && durable) {
        sync_directory_of(temporary);
    }
    close(record->fd);
    return ended;
}
