/* The loop, members, and queries by UDP. See server.h. */
#include "dns/internal.h"
#include "parent/requests.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE = 16 /* queries of one member, before it is another's turn */, TABLE_BYTES_MAX = 4 << 20 };

static int events = -1, changes = -1;
static struct mb_dns_asker *askers;
static struct mb_dns_table *tables;
static uint8_t buffer[MB_DNS_MESSAGE_MAX];

/* ---- descriptors and time ------------------------------------------------------------------- */

int mb_dns_watch(struct mb_dns_source *source, unsigned wanted) {
    struct epoll_event event = {.events = wanted, .data.ptr = source};
    return epoll_ctl(events, EPOLL_CTL_ADD, source->fd, &event);
}

void mb_dns_rewatch(struct mb_dns_source *source, unsigned wanted) {
    struct epoll_event event = {.events = wanted, .data.ptr = source};
    epoll_ctl(events, EPOLL_CTL_MOD, source->fd, &event);
}

/* Others hold copies of a member's sockets, so closing ours wouldn't stop the kernel from watching them. */
void mb_dns_forget(struct mb_dns_source *source) {
    if (source->fd >= 0) {
        epoll_ctl(events, EPOLL_CTL_DEL, source->fd, NULL);
        close(source->fd);
        source->fd = -1;
    }
}

int64_t mb_dns_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* All of a list wait equally long, so its end is the right place. */
void mb_dns_time(struct mb_dns_timed *list, struct mb_dns_timed *timed, int64_t after_ms) {
    mb_dns_untime(timed);
    timed->due_ms = mb_dns_now_ms() + after_ms;
    timed->next = list;
    timed->previous = list->previous;
    list->previous->next = timed;
    list->previous = timed;
}

void mb_dns_untime(struct mb_dns_timed *timed) {
    if (timed->next) {
        timed->next->previous = timed->previous;
        timed->previous->next = timed->next;
        timed->next = timed->previous = NULL;
    }
}

static int timeout_ms(void) {
    const struct mb_dns_timed *lists[] = {&mb_dns_exchanges, &mb_dns_clients};
    int64_t next = INT64_MAX, now = 0;
    for (size_t i = 0; i < 2; i++) {
        if (lists[i]->next != lists[i] && lists[i]->next->due_ms < next) {
            next = lists[i]->next->due_ms;
            now = mb_dns_now_ms();
        }
    }
    return next == INT64_MAX ? -1 : next > now ? (int)(next - now) : 0;
}

static void on_time(void) {
    int64_t now = mb_dns_now_ms();
    while (mb_dns_exchanges.next != &mb_dns_exchanges && mb_dns_exchanges.next->due_ms <= now) {
        mb_dns_exchange_is_late(mb_dns_exchanges.next);
    }
    while (mb_dns_clients.next != &mb_dns_clients && mb_dns_clients.next->due_ms <= now) {
        mb_dns_end_client(
            (struct mb_dns_client *)(void *)((char *)mb_dns_clients.next - offsetof(struct mb_dns_client, timed)));
    }
}

/* ---- tables --------------------------------------------------------------------------------- */

static void forget_table(const char *file) {
    for (struct mb_dns_table **place = &tables; *place; place = &(*place)->next) {
        if (!strcmp((*place)->file, file)) {
            struct mb_dns_table *gone = *place;
            *place = gone->next;
            mb_dns_free(gone);
            return;
        }
    }
}

/* Return the text of a file in the root directory, NUL-terminated; NULL if it can't be read. */
static char *read_text(const char *file) {
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat found;
    char *text = NULL;
    if (fd >= 0 && !fstat(fd, &found) && S_ISREG(found.st_mode) && found.st_size < TABLE_BYTES_MAX) {
        text = malloc((size_t)found.st_size + 1);
        ssize_t length = text ? read(fd, text, (size_t)found.st_size) : -1;
        if (length < 0) {
            free(text);
            text = NULL;
        } else {
            text[length] = '\0';
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return text;
}

static void read_table(const char *file) {
    if (*file == '.' || strchr(file, '.')) { /* being written */
        return;
    }
    forget_table(file);
    char *text = read_text(file);
    struct mb_dns_table *table = text ? calloc(1, sizeof *table) : NULL;
    if (!table) {
        free(text);
        return;
    }
    table->file = strdup(file);
    if (mb_dns_parse(table, text) || !table->file) {
        mb_dns_free(table);
        return;
    }
    table->next = tables;
    tables = table;
}

static void read_all_tables(void) {
    while (tables) {
        forget_table(tables->file);
    }
    DIR *directory = opendir(".");
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        read_table(entry->d_name);
    }
    if (directory) {
        closedir(directory);
    }
}

/* Whatever was changed before a query was sent is known before it is answered. */
static void read_changes(void) {
    static _Alignas(struct inotify_event) char data[8192];
    for (ssize_t length; (length = read(changes, data, sizeof data)) > 0;) {
        for (ssize_t at = 0; at < length;) {
            const struct inotify_event *event = (const void *)(data + at);
            if (event->mask & IN_Q_OVERFLOW) {
                read_all_tables();
            } else if (event->len) {
                read_table(event->name);
            }
            at += (ssize_t)(sizeof *event + event->len);
        }
    }
}

/* ---- queries -------------------------------------------------------------------------------- */

size_t mb_dns_refuse(const uint8_t *query, size_t size, int rcode, struct mb_dns_answer *answer) {
    struct mb_dns_query asked;
    if (mb_dns_read(query, size, &asked) < 0) {
        return 0;
    }
    mb_dns_begin(answer, query, &asked, rcode);
    mb_dns_end(answer, &asked, rcode);
    return answer->size;
}

long mb_dns_respond(struct mb_dns_asker *asker, const uint8_t *query, size_t size, struct mb_dns_answer *answer,
                    int tcp) {
    struct mb_dns_query asked;
    int rcode = mb_dns_read(query, size, &asked);
    if (rcode < 0) {
        return 0;
    }
    answer->limit = tcp ? MB_DNS_MESSAGE_MAX : mb_dns_udp_limit(&asked);
    mb_dns_begin(answer, query, &asked, rcode);
    if (!rcode) {
        unsigned *turn = &asker->turns[mb_dns_hash(asked.name, strlen(asked.name)) % MB_DNS_TURNS];
        *turn += asked.type == MB_DNS_A; /* and not for its AAAA, or every second one would never be first */
        switch (mb_dns_look_up(tables, asker->id, *turn, &asked, answer)) {
        case MB_DNS_FORWARD:
            if (asker->upstream_count && size <= MB_DNS_QUERY_MAX) {
                return -1;
            }
            rcode = MB_DNS_SERVFAIL;
            break;
        case MB_DNS_OTHER: /* it has no way out, and a name server is one */
            rcode = MB_DNS_SERVFAIL;
            break;
        case MB_DNS_NOBODY:
            rcode = MB_DNS_NXDOMAIN;
            break;
        case MB_DNS_KNOWN:
            break;
        }
        answer->data[3] |= (uint8_t)(rcode & 15);
    }
    mb_dns_end(answer, &asked, rcode);
    return (long)answer->size;
}

static struct mb_dns_asker *asker_of(struct mb_dns_source *source, size_t offset) {
    return (struct mb_dns_asker *)(void *)((char *)source - offset);
}

static void read_datagrams(struct mb_dns_source *source, unsigned happened) {
    struct mb_dns_asker *asker = asker_of(source, offsetof(struct mb_dns_asker, udp));
    static uint8_t data[MB_DNS_LARGE_UDP];
    (void)happened;
    for (int i = 0; i < AT_ONCE; i++) {
        struct sockaddr_in from;
        socklen_t from_size = sizeof from;
        ssize_t size =
            recvfrom(source->fd, buffer, sizeof buffer, MSG_DONTWAIT, (struct sockaddr *)(void *)&from, &from_size);
        if (size < 0) {
            return;
        }
        struct mb_dns_answer answer = {.data = data, .limit = sizeof data};
        long written = mb_dns_respond(asker, buffer, (size_t)size, &answer, 0);
        if (written < 0 && !mb_dns_forward(asker, buffer, (size_t)size, NULL, &from)) {
            answer.limit = sizeof data;
            written = (long)mb_dns_refuse(buffer, (size_t)size, MB_DNS_SERVFAIL, &answer);
        }
        if (written > 0) {
            sendto(source->fd, data, (size_t)written, MSG_DONTWAIT, (const struct sockaddr *)(void *)&from, from_size);
        }
    }
}

/* ---- members -------------------------------------------------------------------------------- */

static void drop(struct mb_dns_asker *asker) {
    for (struct mb_dns_asker **place = &askers; *place; place = &(*place)->next) {
        if (*place == asker) {
            *place = asker->next;
            break;
        }
    }
    mb_dns_end_exchanges_of(asker, NULL);
    mb_dns_end_clients_of(asker);
    mb_dns_forget(&asker->udp);
    mb_dns_forget(&asker->tcp);
    mb_dns_forget(&asker->connection);
    free(asker);
}

static int parse_upstream(const char *text, struct mb_dns_upstream *upstream) {
    char host[INET6_ADDRSTRLEN + 1];
    unsigned port, scope = 0;
    struct sockaddr_in *v4 = (void *)&upstream->address;
    struct sockaddr_in6 *v6 = (void *)&upstream->address;
    int read = sscanf(text, "%46s %u %u", host, &port, &scope);
    memset(upstream, 0, sizeof *upstream);
    if (read < 2 || port > 65535) {
        return 0;
    }
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        upstream->size = sizeof *v4;
    } else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        v6->sin6_scope_id = scope;
        upstream->size = sizeof *v6;
    }
    return upstream->size > 0;
}

/* Take what a member brings; returns 0 if it is not as it should be. */
static int take_registration(struct mb_dns_asker *asker, const struct mb_received *message) {
    const char *at = message->data, *end = at + (message->length > 0 ? message->length : 0);
    if (message->length <= 0 || message->length > MB_DNS_REGISTRATION_MAX || end[-1] || message->fd_count != 2 ||
        asker->udp.fd >= 0 || strlen(at) >= sizeof asker->id) {
        return 0;
    }
    memcpy(asker->id, at, strlen(at) + 1);
    for (at += strlen(at) + 1; at < end && asker->upstream_count < MB_DNS_UPSTREAMS_MAX; at += strlen(at) + 1) {
        asker->upstream_count += (unsigned)parse_upstream(at, &asker->upstreams[asker->upstream_count]);
    }
    asker->udp = (struct mb_dns_source){message->fds[0], read_datagrams};
    asker->tcp = (struct mb_dns_source){message->fds[1], mb_dns_accept};
    return !mb_dns_watch(&asker->udp, EPOLLIN) && !mb_dns_watch(&asker->tcp, EPOLLIN);
}

static void read_connection(struct mb_dns_source *source, unsigned happened) {
    static struct mb_received message;
    struct mb_dns_asker *asker = asker_of(source, offsetof(struct mb_dns_asker, connection));
    (void)happened;
    mb_receive(source->fd, &message);
    if (!take_registration(asker, &message)) {
        if (asker->udp.fd < 0 || (message.fd_count && asker->udp.fd != message.fds[0])) {
            mb_close_received(&message);
        }
        drop(asker);
    }
}

static void add_member(int fd) {
    struct mb_dns_asker *asker = calloc(1, sizeof *asker);
    if (!asker) {
        close(fd);
        return;
    }
    asker->connection = (struct mb_dns_source){fd, read_connection};
    asker->udp.fd = asker->tcp.fd = -1;
    asker->next = askers;
    askers = asker;
    if (mb_dns_watch(&asker->connection, EPOLLIN)) {
        drop(asker);
    }
}

static void accept_member(struct mb_dns_source *source, unsigned happened) {
    (void)happened;
    int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        add_member(fd);
    }
}

/* ---- the loop ------------------------------------------------------------------------------- */

/* One event at a time, because it may make the next one obsolete. */
_Noreturn void mb_dns_serve(int listener, int first, int directory) {
    static struct mb_dns_source members = {.ready = accept_member}, changed = {.ready = NULL};
    members.fd = listener;
    events = epoll_create1(EPOLL_CLOEXEC);
    changes = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    changed.fd = changes;
    if (mb_dns_confine(directory) || events < 0 || mb_dns_watch(&members, EPOLLIN) || mb_dns_watch(&changed, EPOLLIN) ||
        inotify_add_watch(changes, ".", IN_MOVED_TO | IN_MOVED_FROM | IN_CLOSE_WRITE | IN_DELETE) < 0) {
        _exit(1);
    }
    close(directory);
    read_all_tables();
    add_member(first);
    for (;;) {
        if (!askers) {
            accept_member(&members, 0); /* who was about to register; it is non-blocking */
            if (!askers) {
                _exit(0);
            }
        }
        on_time();
        struct epoll_event event;
        int count = epoll_wait(events, &event, 1, timeout_ms());
        read_changes();
        struct mb_dns_source *source = count == 1 ? event.data.ptr : NULL;
        if (source && source->ready && source->fd >= 0) {
            source->ready(source, event.events);
        }
    }
}
