/* Who is on a network and under which names: a text that minibox replaces whenever a member comes or goes.
 *
 *     network NAME INTERNAL ADDRESS/PREFIX       INTERNAL: 1, or 0 if it has a way out
 *     ID ADDRESS NAME...                         one line for each member; the first name is its own
 *
 * A container sees the names of the networks that it is on itself, and those alone. */
#ifndef MB_DNS_TABLE_H
#define MB_DNS_TABLE_H

#include "dns/message.h"

struct mb_dns_member {
    const char *id;
    struct in_addr address;
    size_t name, name_count; /* its names: their place among all, and how many */
};

struct mb_dns_name {
    uint64_t hash;
    const char *text; /* in lower case */
};

struct mb_dns_table {
    char *file; /* the name of its file */
    char *text;
    const char *network;
    int internal;
    uint32_t first, mask; /* its subnet, in the host's byte order */
    struct mb_dns_member *members;
    struct mb_dns_name *names;
    size_t member_count;
    struct mb_dns_table *next;
};

/* Parse `text`, which the table keeps; lines that are invalid are left out. Returns 0 or -errno. */
int mb_dns_parse(struct mb_dns_table *table, char *text);

/* FNV-1a of a name, to compare one number and not many texts. */
uint64_t mb_dns_hash(const char *text, size_t length);

void mb_dns_free(struct mb_dns_table *table);

enum mb_dns_found {
    MB_DNS_OTHER,   /* nothing that we know of */
    MB_DNS_FORWARD, /* likewise, and somebody else may be asked */
    MB_DNS_KNOWN,   /* the answer is complete, even if it is empty */
    MB_DNS_NOBODY,  /* an address of one of its networks that nobody has */
};

/* Add to the answer what a container may know. `turn` says which of several addresses comes first. */
enum mb_dns_found mb_dns_look_up(const struct mb_dns_table *tables, const char *asker, unsigned turn,
                                 const struct mb_dns_query *query, struct mb_dns_answer *answer);

#endif
