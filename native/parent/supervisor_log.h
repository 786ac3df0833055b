/* The log of a detached container: one JSON object a line, in the format of Docker's json-file driver. */
#ifndef MB_SUPERVISOR_LOG_H
#define MB_SUPERVISOR_LOG_H

#include <stddef.h>
#include <stdint.h>

#define MB_LOG_LINE_MAX 16384

/* An incomplete line of one of the container's streams. */
struct mb_log_line {
    const char *stream; /* "stdout" or "stderr" */
    int64_t due_ms;     /* 0, or when to log what there is of it, by CLOCK_MONOTONIC; see mb_log_flush */
    int64_t since_ms;   /* 0, or when it began to arrive */
    size_t length;
    char data[MB_LOG_LINE_MAX];
};

struct mb_log {
    const char *path; /* NULL: no log */
    int fd;
    unsigned files; /* the number of files to keep: path, path.1, ... */
    uint64_t size;
    uint64_t size_max; /* of one file, in bytes; 0: no limit */
    int removed_fd;    /* of the file that was removed last, -1: none; a follower of the log may still read it */
    int64_t waits_since_ms;
    int ended;     /* no writers are left: what can't be logged now, as on a full disk, is lost */
    uint64_t lost; /* in bytes */
};

/* Open the file and continue at its end. Returns 0 or -errno. */
int mb_log_open(struct mb_log *log);

/* Log `data`, line by line; `line` keeps what follows the last newline for the next call. Returns how many bytes
 * were taken: fewer than `size` if a line could not be written, for example on a full disk. Then call again with
 * the rest. */
size_t mb_log_append(struct mb_log *log, struct mb_log_line *line, const char *data, size_t size);

/* Log an incomplete line if its program has paused, or has taken long: a prompt, last words without a newline, or
 * dots that show progress. The rest of the line becomes another entry. Does nothing before `line->due_ms`. If it
 * can't be written, it is due later. */
void mb_log_flush(struct mb_log *log, struct mb_log_line *line);

/* Return when to call `mb_log_flush` next, in milliseconds from now; -1: not due. */
int mb_log_due(const struct mb_log_line *line);

/* Log what is left in `line` once its stream has ended. Returns 0, or -errno: then it is kept. */
int mb_log_end(struct mb_log *log, struct mb_log_line *line);

#endif
