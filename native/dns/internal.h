/* What the parts of the name server share; see server.h. */
#ifndef MB_DNS_INTERNAL_H
#define MB_DNS_INTERNAL_H

#include "dns/server.h"
#include "dns/table.h"

#include <sys/socket.h>

enum {
    MB_DNS_TURNS = 64,
    MB_DNS_QUERY_MAX = 4096, /* the largest that is passed on */
    MB_DNS_EXCHANGES_MAX = 8192,
    MB_DNS_OF_MEMBER_MAX = 256, /* of these */
    MB_DNS_CLIENTS_MAX = 512,
    MB_DNS_CLIENTS_OF_MEMBER_MAX = 32,
    MB_DNS_EXCHANGE_MS = 2000, /* until the next server is asked */
    MB_DNS_IDLE_MS = 10000,    /* until a silent TCP connection is closed */
};

/* A descriptor that is watched, and what to do when it is ready. */
struct mb_dns_source {
    int fd;
    void (*ready)(struct mb_dns_source *source, unsigned events);
};

/* What ends at some time, in the order of these times. */
struct mb_dns_timed {
    struct mb_dns_timed *next, *previous;
    int64_t due_ms;
};

struct mb_dns_upstream {
    struct sockaddr_storage address;
    socklen_t size;
};

struct mb_dns_asker {
    struct mb_dns_source connection, udp, tcp;
    char id[128];
    unsigned upstream_count, exchanges, clients;
    unsigned turns[MB_DNS_TURNS]; /* how often a name was asked for, by its hash */
    struct mb_dns_upstream upstreams[MB_DNS_UPSTREAMS_MAX];
    struct mb_dns_asker *next;
};

/* A TCP connection of a member. It serves one query at a time. */
struct mb_dns_client {
    struct mb_dns_source source;
    struct mb_dns_timed timed;
    struct mb_dns_asker *asker;
    int busy; /* its query was passed on */
    size_t received, size, sent;
    uint8_t *answer; /* what is being sent */
    uint8_t query[2 + MB_DNS_QUERY_MAX];
};

int mb_dns_watch(struct mb_dns_source *source, unsigned events);
void mb_dns_rewatch(struct mb_dns_source *source, unsigned events);
/* Close its descriptor. */
void mb_dns_forget(struct mb_dns_source *source);

int64_t mb_dns_now_ms(void);
void mb_dns_time(struct mb_dns_timed *list, struct mb_dns_timed *timed, int64_t after_ms);
void mb_dns_untime(struct mb_dns_timed *timed);

/* Write the answer to a query into `answer->data`: its size; 0 to say nothing; -1 if another server is to be asked. */
long mb_dns_respond(struct mb_dns_asker *asker, const uint8_t *query, size_t size, struct mb_dns_answer *answer,
                    int tcp);

/* Write an answer that only has an rcode. */
size_t mb_dns_refuse(const uint8_t *query, size_t size, int rcode, struct mb_dns_answer *answer);

/* tcp.c */
extern struct mb_dns_timed mb_dns_clients;
void mb_dns_accept(struct mb_dns_source *source, unsigned events);
void mb_dns_end_client(struct mb_dns_client *client);
void mb_dns_end_clients_of(const struct mb_dns_asker *asker);
/* Send an answer of at most 65535 bytes to a client, which may end by it. */
void mb_dns_answer_client(struct mb_dns_client *client, const uint8_t *data, size_t size);

/* forward.c */
extern struct mb_dns_timed mb_dns_exchanges;
/* Ask the servers of `asker` one after the other: for `client`, or by UDP for `from`. Returns 0 if that is too much;
 * otherwise the client may have been answered, and ended. */
int mb_dns_forward(struct mb_dns_asker *asker, const uint8_t *query, size_t size, struct mb_dns_client *client,
                   const struct sockaddr_in *from);
void mb_dns_end_exchanges_of(const struct mb_dns_asker *asker, const struct mb_dns_client *client);
void mb_dns_exchange_is_late(struct mb_dns_timed *timed);

/* confine.c: give up all privileges, with `tables` as root directory. Returns 0 or -errno. */
int mb_dns_confine(int tables);

#endif
