/* The supervisor of a detached container: its parent, and the owner of its terminal or pipes.
 *
 * Started by minibox with a SOCK_SEQPACKET socket as descriptor 0, over which it is asked for three
 * things, in this order: to clone the container's first process and its helper (`mb_spawn_request`),
 * when the command runs to keep descriptors open until it has ended (MB_HOLD, any number of times, answered by
 * an int32, 0), and to look after it (`mb_supervise_request`). A socket that closes before that
 * ends the supervisor, and the kernel kills its child with it. Numbers are in host byte order:
 * the messages never leave the machine. */
#ifndef MB_SUPERVISOR_H
#define MB_SUPERVISOR_H

#include "parent/requests.h"

#include <stdint.h>

/* Descriptors of a supervise request, in this order; the streams that aren't there are left out. */
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
    uint32_t timeout_ms;  /* 0: none; the container is killed when it has passed */
    uint32_t health_interval_ms, health_start_interval_ms, health_start_period_ms; /* see supervisor_health.h */
    uint32_t stdin_once; /* the container's input ends when the client that wrote to it leaves */
    uint32_t log_files;  /* how many are kept, the one that is written to among them; 0: no log */
    uint64_t log_bytes_max;
    uint32_t after_argc;  /* the command that takes this process's place in the end; the lock is its descriptor 3 */
    uint32_t health_argc; /* the command that is run every health_interval_ms; 0: none */
    char text[];          /* NUL-terminated: path of the log, path of the exit record, both commands' arguments */
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

/* Execute a command in this process's place; returns when that fails. SIGTERM stays blocked: nobody shall stop it half
 * way, and who waits takes it for an order to go on. */
void mb_go_on_as(char **command);

/* minibox-delay MILLISECONDS COMMAND...: execute the command after that time, or at once at SIGTERM. */
int mb_delay(int argc, char **argv);

/* minibox-log, for a container that has no supervisor; see output_log.c. */
int mb_output_log(int argc, char **argv);

#endif
