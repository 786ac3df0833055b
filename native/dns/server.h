/* The name server of networks with names: one process for all of a state root, which answers at 127.0.0.11:53 in each
 * member's network namespace.
 *
 * A socket stays in the namespace it was made in. So each member brings its own, by a connection that stays open as
 * long as the member lives: one packet with its id, and the servers that may be asked for other names. What was sent
 * to a socket while there is no server waits in it. The server ends with its last member.
 *
 * It reads what containers send, so it has no privileges, and sees nothing of the host's files but the tables
 * (table.h). What it asks others for, it asks in the network namespace in which it was started. */
#ifndef MB_DNS_SERVER_H
#define MB_DNS_SERVER_H

/* A packet of registration: NUL-terminated texts, first the container's id, then addresses, each with its port:
 * "192.0.2.1 53". With it come the UDP socket and the listening TCP socket. */
enum { MB_DNS_REGISTRATION_MAX = 4096, MB_DNS_UPSTREAMS_MAX = 8 };

/* Serve until no member is left.
 *
 * `listener` is a listening SOCK_SEQPACKET socket for members, `first` a connection, `tables` the directory of the
 * tables. */
_Noreturn void mb_dns_serve(int listener, int first, int tables);

/* minibox-member UDP TCP..., the keeper of a member's sockets; see member.c. */
int mb_dns_member(int argc, char **argv);

#endif
