/* The log of a detached container: one JSON object a line, as Docker's json-file driver writes it. */
#ifndef MB_SUPERVISOR_LOG_H
#define MB_SUPERVISOR_LOG_H

#include <stddef.h>
#include <stdint.h>

#define MB_LOG_LINE_MAX 16384

/* A line that is not complete yet, of one of the container's streams. */
struct mb_log_line {
    const char *stream; /* "stdout" or "stderr" */
    int64_t due_ms;     /* 0, or when what there is of it goes to the log, by CLOCK_MONOTONIC; see mb_log_flush */
    int64_t since_ms;   /* 0, or when that began to come */
    size_t length;
    char data[MB_LOG_LINE_MAX];
};

struct mb_log {
    const char *path; /* NULL: nothing is logged */
    int fd;
    unsigned files; /* path, path.1, ...: how many are kept */
    uint64_t size;
    uint64_t size_max; /* of one file, in bytes; 0: no limit */
    int removed_fd;    /* of the file that was removed last, -1: none; who follows the log may still read it */
    int64_t waits_since_ms;
    int ended;     /* nobody writes any more: what the log doesn't take then, as on a full disk, is lost */
    uint64_t lost; /* in bytes */
};

/* Open the file and go on at its end. Returns 0 or -errno. */
int mb_log_open(struct mb_log *log);

/* Log `data`, line by line; what follows the last newline is kept in `line` for the next call.
 * Returns how many bytes were taken: fewer than `size` when a line could not be written, as on a
 * full disk; the caller comes again with the rest. */
size_t mb_log_append(struct mb_log *log, struct mb_log_line *line, const char *data, size_t size);

/* Log what there is of a line whose program has written nothing for a while, or has written at it for long: a prompt, a
 * last word without a newline, or dots that show progress. The rest becomes an entry of its own. Nothing happens before
 * `line->due_ms`; one that can't be written is due later. */
void mb_log_flush(struct mb_log *log, struct mb_log_line *line);

/* When to call `mb_log_flush` next, in milliseconds from now; -1: it isn't due. */
int mb_log_due(const struct mb_log_line *line);

/* Log what is left in `line` when its stream has ended. Returns 0, or -errno: it is kept. */
int mb_log_end(struct mb_log *log, struct mb_log_line *line);

#endif
