/* The supervisor of a detached container: its parent, and the owner of its terminal or pipes.
 *
 * minibox starts it with a SOCK_SEQPACKET socket as descriptor 0 and makes three requests, in this order. It clones
 * the container's first process and its helper (`mb_spawn_request`). Once the command runs, it keeps descriptors
 * open until the command has ended (MB_HOLD, any number of times, answered by an int32, 0). Then it watches the
 * container (`mb_supervise_request`). If the socket closes before that, the supervisor ends, and the kernel kills
 * its child with it. Numbers are in host byte order: the messages never leave the machine. */
#ifndef MB_SUPERVISOR_H
#define MB_SUPERVISOR_H

#include "parent/requests.h"

#include <stdint.h>

/* Descriptors of a supervise request, in this order; streams that don't exist are left out. */
enum mb_supervised {
    MB_OWNED = 0x1,    /* the lock on the container, held for as long as this process lives */
    MB_LISTENER = 0x2, /* a listening SOCK_SEQPACKET socket for clients */
    MB_PTY = 0x4,      /* the terminal's master; or */
    MB_STDIN = 0x8,    /* pipes: the container's input, which we write to, */
    MB_STDOUT = 0x10,  /* and its output and error, which we read */
    MB_STDERR = 0x20,
};

/* Answered by an int32, 0. */
struct mb_supervise_request {
    uint32_t kind;
    uint32_t descriptors; /* which of enum mb_supervised came along */
    uint32_t timeout_ms;  /* 0: none; otherwise the container is killed after this time */
    uint32_t health_interval_ms, health_start_interval_ms, health_start_period_ms; /* see supervisor_health.h */
    uint32_t stdin_once; /* the container's input ends when the client that wrote to it leaves */
    uint32_t log_files;  /* the number of files to keep, including the current one; 0: no log */
    uint64_t log_bytes_max;
    uint32_t after_argc;  /* the command that replaces this process at the end; its descriptor 3 is the lock */
    uint32_t health_argc; /* the command to run every health_interval_ms; 0: none */
    uint32_t end_size;    /* of a plan for the end, see end.h; if that isn't possible, the command does all of it */
    uint32_t reserved;
    char text[]; /* that plan; then, NUL-terminated: path of the log, path of the exit record, both commands' arguments
                  */
};

/* One byte before the data of a packet to or from a client. */
enum mb_client_packet {
    MB_CLIENT_INPUT = 'i',  /* from: for the container's input */
    MB_CLIENT_CLOSE = 'c',  /* from: no more input, and with stdin_once it ends for the container */
    MB_CLIENT_SIZE = 'w',   /* from: rows and columns of the terminal, two uint16 */
    MB_CLIENT_OUTPUT = 'o', /* to: what the container wrote */
    MB_CLIENT_ERROR = 'e',  /* to: what it wrote to its standard error */
    MB_CLIENT_EXIT = 'x',   /* to: its exit status, an int32; the last packet */
};

int mb_supervisor(void);

/* Execute a command in this process's place; returns if that fails. SIGTERM stays blocked: it must not stop the
 * command half-way, and minibox-delay takes it as an order to continue. */
void mb_go_on_as(char **command);

/* minibox-delay MILLISECONDS COMMAND...: execute the command after that time, or at once at SIGTERM. */
int mb_delay(int argc, char **argv);

/* minibox-log, for a container that has no supervisor; see output_log.c. */
int mb_output_log(int argc, char **argv);

#endif
