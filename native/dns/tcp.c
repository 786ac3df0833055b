/* Queries by TCP: each message has its length before it, RFC 1035, section 4.2.2. */
#include "dns/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

struct mb_dns_timed mb_dns_clients = {.next = &mb_dns_clients, .previous = &mb_dns_clients};

static unsigned count;

void mb_dns_end_client(struct mb_dns_client *client) {
    mb_dns_end_exchanges_of(client->asker, client);
    mb_dns_untime(&client->timed);
    mb_dns_forget(&client->source);
    client->asker->clients--;
    count--;
    free(client->answer);
    free(client);
}

void mb_dns_end_clients_of(const struct mb_dns_asker *asker) {
    for (struct mb_dns_timed *each = mb_dns_clients.next, *next; each != &mb_dns_clients; each = next) {
        next = each->next;
        struct mb_dns_client *client = (void *)((char *)each - offsetof(struct mb_dns_client, timed));
        if (client->asker == asker) {
            mb_dns_end_client(client);
        }
    }
}

/* Send what is left of the answer; returns 0 if the connection is gone. */
static int send_answer(struct mb_dns_client *client) {
    ssize_t sent = send(client->source.fd, client->answer + client->sent, client->size - client->sent,
                        MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        return 0;
    }
    client->sent += sent > 0 ? (size_t)sent : 0;
    int done = client->sent == client->size;
    if (done) {
        free(client->answer);
        client->answer = NULL;
        client->received = 0;
    }
    mb_dns_rewatch(&client->source, done ? EPOLLIN : EPOLLOUT);
    return 1;
}

void mb_dns_answer_client(struct mb_dns_client *client, const uint8_t *data, size_t size) {
    client->busy = 0;
    client->sent = 0;
    client->size = 2 + size;
    client->answer = malloc(client->size);
    if (!client->answer) {
        mb_dns_end_client(client);
        return;
    }
    client->answer[0] = (uint8_t)(size >> 8);
    client->answer[1] = (uint8_t)size;
    memcpy(client->answer + 2, data, size);
    mb_dns_time(&mb_dns_clients, &client->timed, MB_DNS_IDLE_MS);
    if (!send_answer(client)) {
        mb_dns_end_client(client);
    }
}

static void serve(struct mb_dns_client *client, size_t size) {
    static uint8_t data[MB_DNS_MESSAGE_MAX];
    struct mb_dns_answer answer = {.data = data, .limit = sizeof data};
    const uint8_t *query = client->query + 2;
    long written = mb_dns_respond(client->asker, query, size, &answer, 1);
    if (written < 0) {
        client->busy = 1;
        mb_dns_rewatch(&client->source, 0);
        if (mb_dns_forward(client->asker, query, size, client, NULL)) {
            return; /* the client may have gone already */
        }
        answer.limit = sizeof data;
        written = (long)mb_dns_refuse(query, size, MB_DNS_SERVFAIL, &answer);
    }
    if (written > 0) {
        mb_dns_answer_client(client, data, (size_t)written);
    } else {
        mb_dns_end_client(client);
    }
}

static void read_query(struct mb_dns_client *client) {
    size_t size = client->received < 2 ? 0 : (size_t)(client->query[0] << 8 | client->query[1]);
    size_t wanted = client->received < 2 ? 2 : 2 + size;
    ssize_t length = recv(client->source.fd, client->query + client->received, wanted - client->received, MSG_DONTWAIT);
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (length <= 0) {
        mb_dns_end_client(client);
        return;
    }
    client->received += (size_t)length;
    if (client->received < 2) {
        return;
    }
    size = (size_t)(client->query[0] << 8 | client->query[1]);
    if (!size || size > MB_DNS_QUERY_MAX) {
        mb_dns_end_client(client);
    } else if (client->received == 2 + size) {
        serve(client, size);
    }
}

static void ready(struct mb_dns_source *source, unsigned events) {
    struct mb_dns_client *client = (void *)source; /* its first member */
    if (client->busy || (events & (EPOLLERR | EPOLLHUP) && !(events & EPOLLIN))) {
        mb_dns_end_client(client);
    } else if (client->answer) {
        if (!send_answer(client)) {
            mb_dns_end_client(client);
        }
    } else {
        read_query(client);
    }
}

void mb_dns_accept(struct mb_dns_source *source, unsigned events) {
    struct mb_dns_asker *asker = (void *)((char *)source - offsetof(struct mb_dns_asker, tcp));
    (void)events;
    int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EINVAL) { /* who may configure the container's network has destroyed it, and it is ready forever */
            mb_dns_forget(source);
        }
        return;
    }
    int many = count >= MB_DNS_CLIENTS_MAX || asker->clients >= MB_DNS_CLIENTS_OF_MEMBER_MAX;
    struct mb_dns_client *client = many ? NULL : calloc(1, sizeof *client);
    if (!client) {
        close(fd);
        return;
    }
    client->source = (struct mb_dns_source){fd, ready};
    client->asker = asker;
    asker->clients++;
    count++;
    mb_dns_time(&mb_dns_clients, &client->timed, MB_DNS_IDLE_MS);
    if (mb_dns_watch(&client->source, EPOLLIN)) {
        mb_dns_end_client(client);
    }
}
