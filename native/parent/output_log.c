/* minibox-log PATH BYTES_MAX FILES: write the data of two pipes to a log, until both have ended. */
#include "parent/begin.h"
#include "parent/supervisor.h"
#include "parent/supervisor_log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { RETRY_MS = 200 };

/* If the disk is full, try again, which makes the container wait; once it has ended, drop the rest. */
static void append(struct mb_log *log, struct mb_log_line *line, const char *data, size_t size, int source) {
    for (;;) {
        size_t taken = mb_log_append(log, line, data, size);
        data += taken;
        size -= taken;
        if (!size) {
            log->ended = 0; /* the other stream may still have writers */
            return;
        }
        struct pollfd writers = {.fd = source};
        log->ended = poll(&writers, 1, RETRY_MS) == 1; /* POLLHUP: there are none */
    }
}

int mb_output_log(int argc, char **argv) {
    static struct mb_log_line lines[] = {{.stream = "stdout"}, {.stream = "stderr"}};
    static char data[1 << 16];
    if (argc != 4) {
        return 1;
    }
    if (mb_begin(2)) {
        return 1;
    }
    struct mb_log log = {
        .path = argv[1],
        .size_max = strtoull(argv[2], NULL, 10),
        .files = (unsigned)strtoul(argv[3], NULL, 10),
    };
    if (mb_log_open(&log)) {
        return 1;
    }
    struct pollfd ends[] = {{.fd = 0, .events = POLLIN}, {.fd = 1, .events = POLLIN}};
    while (ends[0].fd >= 0 || ends[1].fd >= 0) {
        int due[] = {mb_log_due(&lines[0]), mb_log_due(&lines[1])};
        poll(ends, 2, due[0] < 0 || (due[1] >= 0 && due[1] < due[0]) ? due[1] : due[0]);
        for (int i = 0; i < 2; i++) {
            mb_log_flush(&log, &lines[i]);
            if (ends[i].fd < 0 || !ends[i].revents) {
                continue;
            }
            ssize_t length = read(ends[i].fd, data, sizeof data);
            if (length > 0) {
                append(&log, &lines[i], data, (size_t)length, ends[i].fd);
            } else if (!length || errno != EINTR) {
                mb_log_end(&log, &lines[i]);
                ends[i].fd = -1;
            }
        }
    }
    return 0;
}
