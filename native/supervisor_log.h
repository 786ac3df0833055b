/* The log of a detached container: one JSON object a line, as Docker's json-file driver writes it. */
#ifndef MB_SUPERVISOR_LOG_H
#define MB_SUPERVISOR_LOG_H

#include <stddef.h>
#include <stdint.h>

#define MB_LOG_LINE_MAX 16384

/* A line that is not complete yet, of one of the container's streams. */
struct mb_log_line {
    const char *stream; /* "stdout" or "stderr" */
    size_t length;
    char data[MB_LOG_LINE_MAX];
};

struct mb_log {
    const char *path; /* NULL: nothing is logged */
    int fd;
    unsigned files; /* path, path.1, ...: how many are kept */
    uint64_t size;
    uint64_t size_max; /* of one file, in bytes; 0: no limit */
};

/* Open the file and go on at its end. Returns 0 or -errno. */
int mb_log_open(struct mb_log *log);

/* Log `data`, line by line; what follows the last newline is kept in `line` for the next call.
 * Returns how many bytes were taken: fewer than `size` when a line could not be written, as on a
 * full disk; the caller comes again with the rest. */
size_t mb_log_append(struct mb_log *log, struct mb_log_line *line, const char *data, size_t size);

/* Log what is left in `line` when its stream has ended. Returns 0, or -errno: it is kept. */
int mb_log_end(struct mb_log *log, struct mb_log_line *line);

#endif
