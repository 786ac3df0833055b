/* DNS messages, RFC 1035 and RFC 6891 (EDNS): read a query, write the answer. Pure: nothing here makes a system call.
 *
 * Whoever sends a query may send anything. Names are never followed through a compression pointer: in a question none
 * can be, and of other records only the length counts. */
#ifndef MB_DNS_MESSAGE_H
#define MB_DNS_MESSAGE_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MB_DNS_MESSAGE_MAX = 65535,
    MB_DNS_HEADER = 12,
    MB_DNS_NAME_MAX = 255,
    MB_DNS_PLAIN_UDP = 512, /* the largest answer by UDP without EDNS */
    MB_DNS_LARGE_UDP = 4096,
};

enum mb_dns_type { MB_DNS_A = 1, MB_DNS_PTR = 12, MB_DNS_ANY = 255 };

enum mb_dns_rcode {
    MB_DNS_NOERROR = 0,
    MB_DNS_FORMERR = 1,
    MB_DNS_SERVFAIL = 2,
    MB_DNS_NXDOMAIN = 3,
    MB_DNS_NOTIMP = 4,
    MB_DNS_REFUSED = 5,
    MB_DNS_BADVERS = 16,
};

struct mb_dns_query {
    uint16_t id, flags, type, class;
    size_t end;                     /* of the question; 0: there is none that can be repeated */
    int edns;                       /* it has an OPT record */
    uint16_t udp_size, edns_flags;  /* of that record */
    int plain;                      /* the name has only characters of host names */
    char name[MB_DNS_NAME_MAX + 1]; /* in lower case, without the last dot */
};

/* Read a query. Returns an rcode: MB_DNS_NOERROR, or the one to answer; -1 if nothing may be answered. */
int mb_dns_read(const uint8_t *message, size_t size, struct mb_dns_query *query);

/* Return the size of the largest answer that the sender of a query takes by UDP. */
size_t mb_dns_udp_limit(const struct mb_dns_query *query);

/* An answer that is being written. Records that don't fit set its bit TC, and are left out. */
struct mb_dns_answer {
    uint8_t *data; /* of `limit` bytes, at least MB_DNS_PLAIN_UDP */
    size_t size, limit;
    uint16_t count;
    int truncated;
};

/* Begin with the header and the question of `message`. */
void mb_dns_begin(struct mb_dns_answer *answer, const uint8_t *message, const struct mb_dns_query *query, int rcode);

void mb_dns_add_address(struct mb_dns_answer *answer, struct in_addr address);

/* Add a PTR record for `name`, a host name, and the network that it is in. */
void mb_dns_add_pointer(struct mb_dns_answer *answer, const char *name, const char *network);

/* Add the OPT record if the query has one, and the numbers that the header is missing. */
void mb_dns_end(struct mb_dns_answer *answer, const struct mb_dns_query *query, int rcode);

/* Is `answer` one to `query`, which went out with the number `id`? */
int mb_dns_answers(const uint8_t *answer, size_t size, const uint8_t *query, size_t query_size, uint16_t id);

/* Return the address that a name below in-addr.arpa stands for; 0 if it is no such name. */
int mb_dns_reverse(const char *name, struct in_addr *address);

#endif
