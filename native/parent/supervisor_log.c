#include "parent/supervisor_log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/* The largest entry: every byte as \u00XX, and the rest of the JSON. */
#define ENTRY_MAX (6 * MB_LOG_LINE_MAX + 128)

enum { QUIET_MS = 100, UNFINISHED_MS = 1000, RETRY_MS = 1000, READER_MS = 5000, READER_BYTES = 16 << 20 };

/* Not an entry: what follows was removed before the reader of this file had reached it. See `_MISSED` of
 * engine/logs.py. */
static const char missed[] = "{\"missed\":true}\n";

static char entry[ENTRY_MAX];

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int mb_log_open(struct mb_log *log) {
    log->removed_fd = -1;
    if (!log->path) {
        return 0;
    }
    log->fd = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    struct stat status;
    if (log->fd < 0 || fstat(log->fd, &status)) {
        return -errno;
    }
    log->size = (uint64_t)status.st_size;
    return 0;
}

static void drop(int *fd) {
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

/* A reader that follows the log has a shared lock (flock) on the file that it reads, and takes the next file's lock
 * before it releases this one. If a reader still has the file that was removed last, it hasn't seen the next one to
 * be removed. So the log grows instead, within limits. */
static int waits_for_reader(struct mb_log *log) {
    if (log->removed_fd < 0 || !flock(log->removed_fd, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK) {
        drop(&log->removed_fd);
        log->waits_since_ms = 0;
        return 0;
    }
    int64_t now = now_ms();
    log->waits_since_ms = log->waits_since_ms ? log->waits_since_ms : now;
    return now - log->waits_since_ms < READER_MS && log->size < log->size_max + READER_BYTES;
}

/* The path of a file of the log; returns 0, or -1 if it is too long. */
static int file_path(const struct mb_log *log, unsigned number, char path[PATH_MAX]) {
    int length =
        number ? snprintf(path, PATH_MAX, "%s.%u", log->path, number) : snprintf(path, PATH_MAX, "%s", log->path);
    return length < PATH_MAX ? 0 : -1;
}

/* Rename path.1 to path.2, and so on; the last is removed. On failure the log stays as it is; only a single file
 * without room for another begins anew, and its readers lose some. */
static void rotate(struct mb_log *log) {
    char from[PATH_MAX], to[PATH_MAX], new[PATH_MAX];
    if (file_path(log, log->files - 1, to) || snprintf(new, sizeof new, "%s.new", log->path) >= PATH_MAX) {
        return;
    }
    int fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0640);
    if (fd < 0) {
        if (log->files == 1 && !ftruncate(log->fd, 0)) {
            log->size = 0;
        }
        return;
    }
    int removed_fd = open(to, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    for (unsigned number = log->files - 1; number > 0; number--) {
        if (file_path(log, number - 1, from) || file_path(log, number, to)) {
            break;
        }
        rename(from, to);
    }
    if (rename(new, log->path)) {
        close(fd);
        close(removed_fd);
        return;
    }
    close(log->fd);
    log->fd = fd;
    log->size = 0;
    if (removed_fd >= 0) {
        if (log->removed_fd >= 0 && write(log->removed_fd, missed, sizeof missed - 1) < 0) {
            /* The reader isn't told, because the disk is full. */
        }
        drop(&log->removed_fd);
        log->removed_fd = removed_fd;
    }
}

/* Return the bytes of the UTF-8 sequence at `text`; 0 if it is invalid; more than `size` if it is cut off. */
static size_t utf8_length(const unsigned char *text, size_t size) {
    size_t length = text[0] < 0x80    ? 1
                    : text[0] >= 0xf5 ? 0
                    : text[0] >= 0xf0 ? 4
                    : text[0] >= 0xe0 ? 3
                    : text[0] >= 0xc2 ? 2
                                      : 0;
    for (size_t i = 1; i < length && i < size; i++) {
        /* Overlong, half a surrogate pair, or past the last code point: the second byte shows all of these. */
        unsigned lowest = i > 1 ? 0x80 : text[0] == 0xe0 ? 0xa0 : text[0] == 0xf0 ? 0x90 : 0x80;
        unsigned highest = i > 1 ? 0xbf : text[0] == 0xed ? 0x9f : text[0] == 0xf4 ? 0x8f : 0xbf;
        if (text[i] < lowest || text[i] > highest) {
            return 0;
        }
    }
    return length;
}

/* Append `size` bytes to `entry` as the inside of a JSON string; return the new end. */
static char *put_json(char *end, const char *data, size_t size) {
    static const char hexadecimal[] = "0123456789abcdef";
    const unsigned char *text = (const unsigned char *)data;
    while (size) {
        size_t length = utf8_length(text, size);
        if (length == 0 || length > size) { /* as Go's decoder does, and so Docker */
            memcpy(end, "\\ufffd", 6);
            end += 6;
            length = 1;
        } else if (*text == '"' || *text == '\\') {
            *end++ = '\\';
            *end++ = (char)*text;
        } else if (*text == '\n' || *text == '\r' || *text == '\t') {
            *end++ = '\\';
            *end++ = *text == '\n' ? 'n' : *text == '\r' ? 'r' : 't';
        } else if (*text < 0x20 || *text == 0x7f) {
            memcpy(end, "\\u00", 4);
            end[4] = hexadecimal[*text >> 4];
            end[5] = hexadecimal[*text & 15];
            end += 6;
        } else {
            memcpy(end, text, length);
            end += length;
        }
        text += length;
        size -= length;
    }
    return end;
}

/* Write the first `size` bytes of a line as one entry, completely or not at all. Returns 0 or -errno. */
static int write_entry(struct mb_log *log, struct mb_log_line *line, size_t size) {
    if (log->path) {
        char *end = stpcpy(entry, "{\"log\":\"");
        end = put_json(end, line->data, size);
        struct timespec now;
        struct tm utc;
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &utc);
        end += sprintf(end, "\",\"stream\":\"%s\",\"time\":\"", line->stream);
        end += strftime(end, 32, "%Y-%m-%dT%H:%M:%S", &utc);
        end += sprintf(end, ".%09ldZ\"}\n", now.tv_nsec);
        size_t length = (size_t)(end - entry);
        if (log->size_max && log->size && log->size + length > log->size_max && !waits_for_reader(log)) {
            rotate(log);
        }
        ssize_t written = write(log->fd, entry, length);
        if (written != (ssize_t)length) {
            int error = written < 0 ? errno : ENOSPC;
            if (written > 0 && ftruncate(log->fd, (off_t)log->size)) {
                log->size += (uint64_t)written; /* half an entry stays; readers skip it */
            }
            return -error;
        }
        log->size += length;
    }
    line->length -= size;
    line->since_ms = 0;
    memmove(line->data, line->data + size, line->length);
    return 0;
}

/* Return how much of a full line to write, without splitting a character. */
static size_t whole_characters(const struct mb_log_line *line) {
    for (size_t back = 1; back < 4 && back <= line->length; back++) {
        const unsigned char *start = (const unsigned char *)line->data + line->length - back;
        if (utf8_length(start, back) > back) {
            return line->length - back;
        }
    }
    return line->length;
}

void mb_log_flush(struct mb_log *log, struct mb_log_line *line) {
    if (!line->due_ms || now_ms() < line->due_ms) {
        return;
    }
    size_t size = whole_characters(line);
    line->since_ms = 0; /* if it can't be written, don't try again at each new byte */
    line->due_ms = size && write_entry(log, line, size) ? now_ms() + RETRY_MS : 0;
}

int mb_log_due(const struct mb_log_line *line) {
    if (!line->due_ms) {
        return -1;
    }
    int64_t left = line->due_ms - now_ms();
    return left < 0 ? 0 : (int)left;
}

static size_t append(struct mb_log *log, struct mb_log_line *line, const char *data, size_t size) {
    size_t taken = 0;
    for (;;) {
        int complete = line->length && line->data[line->length - 1] == '\n';
        if (complete || line->length == MB_LOG_LINE_MAX) {
            if (write_entry(log, line, complete ? line->length : whole_characters(line))) {
                return taken;
            }
        }
        if (taken == size) {
            return taken;
        }
        size_t space = MB_LOG_LINE_MAX - line->length, rest = size - taken;
        size_t part = rest < space ? rest : space;
        const char *newline = memchr(data + taken, '\n', part);
        if (newline) {
            part = (size_t)(newline - data) - taken + 1;
        }
        memcpy(line->data + line->length, data + taken, part);
        line->length += part;
        taken += part;
    }
}

static void lose(struct mb_log *log, struct mb_log_line *line, size_t size) {
    log->lost += line->length + size;
    line->length = 0;
}

size_t mb_log_append(struct mb_log *log, struct mb_log_line *line, const char *data, size_t size) {
    size_t taken = append(log, line, data, size);
    if (taken < size && log->ended) {
        lose(log, line, size - taken);
        taken = size;
    }
    if (!line->length) {
        line->due_ms = line->since_ms = 0;
        return taken;
    }
    int64_t now = now_ms(), latest;
    line->since_ms = line->since_ms ? line->since_ms : now;
    latest = line->since_ms + UNFINISHED_MS;
    line->due_ms = now + QUIET_MS < latest ? now + QUIET_MS : latest;
    return taken;
}

int mb_log_end(struct mb_log *log, struct mb_log_line *line) {
    int error = line->length ? write_entry(log, line, line->length) : 0;
    if (error && log->ended) {
        lose(log, line, 0);
        return 0;
    }
    return error;
}
