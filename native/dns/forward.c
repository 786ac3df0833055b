/* Queries that others answer: each has a socket of its own, so that its port and its number can't be guessed, and only
 * the server that was asked can answer. A query is passed on as it is, but for its number, and so is the answer. */
#include "dns/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>

struct mb_dns_timed mb_dns_exchanges = {.next = &mb_dns_exchanges, .previous = &mb_dns_exchanges};

struct exchange {
    struct mb_dns_source source;
    struct mb_dns_timed timed;
    struct mb_dns_asker *asker;
    struct mb_dns_client *client; /* or NULL: by UDP, to `from` */
    struct sockaddr_in from;
    unsigned tried; /* servers */
    uint8_t id[2];  /* the client's own */
    int connecting;
    size_t received;
    uint8_t *answer; /* by TCP, with its length */
    size_t size;
    uint8_t query[]; /* with room for its length before it */
};

static unsigned count;
static uint8_t buffer[MB_DNS_MESSAGE_MAX];

static struct exchange *exchange_of(struct mb_dns_timed *timed) {
    return (struct exchange *)(void *)((char *)timed - offsetof(struct exchange, timed));
}

static void end(struct exchange *exchange) {
    mb_dns_untime(&exchange->timed);
    mb_dns_forget(&exchange->source);
    exchange->asker->exchanges--;
    count--;
    free(exchange->answer);
    free(exchange);
}

void mb_dns_end_exchanges_of(const struct mb_dns_asker *asker, const struct mb_dns_client *client) {
    for (struct mb_dns_timed *each = mb_dns_exchanges.next, *next; each != &mb_dns_exchanges; each = next) {
        next = each->next;
        if (exchange_of(each)->asker == asker && (!client || exchange_of(each)->client == client)) {
            end(exchange_of(each));
        }
    }
}

/* Hand the answer over, with the client's own number; this ends the exchange. */
static void deliver(struct exchange *exchange, uint8_t *answer, size_t size) {
    struct mb_dns_client *client = exchange->client;
    memcpy(answer, exchange->id, sizeof exchange->id);
    if (client) {
        exchange->client = NULL;
        mb_dns_answer_client(client, answer, size);
    } else {
        sendto(exchange->asker->udp.fd, answer, size, MSG_DONTWAIT, (const struct sockaddr *)(void *)&exchange->from,
               sizeof exchange->from);
    }
    end(exchange);
}

static void give_up(struct exchange *exchange) {
    struct mb_dns_answer answer = {.data = buffer, .limit = sizeof buffer};
    size_t size = mb_dns_refuse(exchange->query + 2, exchange->size, MB_DNS_SERVFAIL, &answer);
    deliver(exchange, buffer, size);
}

/* Begin to ask one server; returns 0 if that fails at once. */
static int ask(struct exchange *exchange, const struct mb_dns_upstream *upstream) {
    int type = exchange->client ? SOCK_STREAM : SOCK_DGRAM;
    exchange->source.fd = socket(upstream->address.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (exchange->source.fd < 0 || getrandom(exchange->query + 2, 2, GRND_NONBLOCK) != 2) {
        return 0;
    }
    exchange->received = 0;
    exchange->connecting = 0;
    int error = connect(exchange->source.fd, (const struct sockaddr *)(const void *)&upstream->address, upstream->size);
    if (exchange->client) {
        exchange->connecting = 1;
        return (!error || errno == EINPROGRESS) && !mb_dns_watch(&exchange->source, EPOLLOUT);
    }
    return !error &&
           send(exchange->source.fd, exchange->query + 2, exchange->size, MSG_NOSIGNAL) == (ssize_t)exchange->size &&
           !mb_dns_watch(&exchange->source, EPOLLIN);
}

static void ask_next(struct exchange *exchange) {
    while (exchange->tried < exchange->asker->upstream_count) {
        mb_dns_forget(&exchange->source);
        if (ask(exchange, &exchange->asker->upstreams[exchange->tried++])) {
            mb_dns_time(&mb_dns_exchanges, &exchange->timed, MB_DNS_EXCHANGE_MS);
            return;
        }
    }
    give_up(exchange);
}

void mb_dns_exchange_is_late(struct mb_dns_timed *timed) { ask_next(exchange_of(timed)); }

/* An answer has come; one that only says that the server can't is another's chance. */
static void take(struct exchange *exchange, uint8_t *answer, size_t size) {
    const uint8_t *query = exchange->query + 2;
    uint16_t id = (uint16_t)(query[0] << 8 | query[1]);
    if (!mb_dns_answers(answer, size, query, exchange->size, id)) {
        if (exchange->client) {
            ask_next(exchange);
        }
        return; /* by UDP the right one may follow */
    }
    int rcode = answer[3] & 15;
    if ((rcode == MB_DNS_SERVFAIL || rcode == MB_DNS_REFUSED || rcode == MB_DNS_NOTIMP) &&
        exchange->tried < exchange->asker->upstream_count) {
        ask_next(exchange);
    } else {
        deliver(exchange, answer, size);
    }
}

static void read_stream(struct exchange *exchange) {
    uint8_t *answer = exchange->answer;
    size_t wanted = exchange->received < 2 ? 2 : 2u + (size_t)(answer[0] << 8 | answer[1]);
    ssize_t length = recv(exchange->source.fd, answer + exchange->received, wanted - exchange->received, MSG_DONTWAIT);
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (length <= 0) {
        ask_next(exchange);
        return;
    }
    exchange->received += (size_t)length;
    wanted = exchange->received < 2 ? 2 : 2u + (size_t)(answer[0] << 8 | answer[1]);
    if (exchange->received > 2 && exchange->received == wanted) {
        take(exchange, answer + 2, wanted - 2);
    }
}

static void write_stream(struct exchange *exchange) {
    exchange->query[0] = (uint8_t)(exchange->size >> 8);
    exchange->query[1] = (uint8_t)exchange->size;
    if (send(exchange->source.fd, exchange->query, exchange->size + 2, MSG_NOSIGNAL) != (ssize_t)exchange->size + 2) {
        ask_next(exchange); /* it fits into the kernel's buffer, so it was refused */
        return;
    }
    exchange->connecting = 0;
    mb_dns_rewatch(&exchange->source, EPOLLIN);
}

static void ready(struct mb_dns_source *source, unsigned events) {
    struct exchange *exchange = (void *)source; /* its first member */
    (void)events;
    if (exchange->connecting) {
        write_stream(exchange);
    } else if (exchange->client) {
        read_stream(exchange);
    } else {
        ssize_t size = recv(source->fd, buffer, sizeof buffer, MSG_DONTWAIT);
        if (size >= 0) {
            take(exchange, buffer, (size_t)size);
        } else if (errno != EAGAIN && errno != EINTR) {
            ask_next(exchange); /* nobody listens there: ECONNREFUSED */
        }
    }
}

int mb_dns_forward(struct mb_dns_asker *asker, const uint8_t *query, size_t size, struct mb_dns_client *client,
                   const struct sockaddr_in *from) {
    int many = count >= MB_DNS_EXCHANGES_MAX || asker->exchanges >= MB_DNS_OF_MEMBER_MAX;
    struct exchange *exchange = many ? NULL : calloc(1, sizeof *exchange + 2 + size);
    if (!exchange) {
        return 0;
    }
    exchange->source = (struct mb_dns_source){-1, ready};
    exchange->asker = asker;
    exchange->client = client;
    exchange->size = size;
    memcpy(exchange->id, query, sizeof exchange->id);
    memcpy(exchange->query + 2, query, size);
    if (from) {
        exchange->from = *from;
    }
    if (client) {
        exchange->answer = malloc(2 + MB_DNS_MESSAGE_MAX);
    }
    asker->exchanges++;
    count++;
    if (client && !exchange->answer) {
        end(exchange);
        return 0;
    }
    ask_next(exchange);
    return 1;
}
