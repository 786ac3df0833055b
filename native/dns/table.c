#include "dns/table.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FOUND_MAX = 4096 }; /* addresses: more don't fit into an answer */

uint64_t mb_dns_hash(const char *text, size_t length) {
    uint64_t hash = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ (uint8_t)text[i]) * 0x100000001b3ull;
    }
    return hash;
}

static int count_of(const char *text, char c) {
    int count = 0;
    for (; *text; text++) {
        count += *text == c;
    }
    return count;
}

static int parse_network(struct mb_dns_table *table, char *line) {
    char *rest = line;
    const char *word = strsep(&rest, " "), *name = strsep(&rest, " "), *internal = strsep(&rest, " ");
    char *address = strsep(&rest, "/");
    struct in_addr first;
    if (strcmp(word, "network") || !name || !internal || !address || !rest ||
        inet_pton(AF_INET, address, &first) != 1) {
        return -EINVAL;
    }
    unsigned long prefix = strtoul(rest, NULL, 10);
    if (prefix < 1 || prefix > 32) {
        return -EINVAL;
    }
    table->network = name;
    table->internal = !strcmp(internal, "1");
    table->mask = UINT32_MAX << (32 - prefix);
    table->first = ntohl(first.s_addr) & table->mask;
    return 0;
}

/* Parse a member's line; its names become the next ones after `count`. Returns how many there are then. */
static size_t parse_member(struct mb_dns_table *table, char *line, size_t count) {
    struct mb_dns_member *member = &table->members[table->member_count];
    char *rest = line, *word;
    member->id = strsep(&rest, " ");
    word = strsep(&rest, " ");
    if (!*member->id || !word || inet_pton(AF_INET, word, &member->address) != 1) {
        return count;
    }
    member->name = count;
    while ((word = strsep(&rest, " "))) {
        for (char *c = word; *c; c++) {
            *c = (char)tolower((unsigned char)*c);
        }
        table->names[count++] = (struct mb_dns_name){mb_dns_hash(word, strlen(word)), word};
    }
    member->name_count = count - member->name;
    table->member_count++;
    return count;
}

int mb_dns_parse(struct mb_dns_table *table, char *text) {
    table->text = text;
    table->members = calloc((size_t)count_of(text, '\n') + 1, sizeof *table->members);
    table->names = calloc((size_t)count_of(text, ' ') + 1, sizeof *table->names);
    if (!table->members || !table->names) {
        return -ENOMEM;
    }
    char *rest = text;
    int error = parse_network(table, strsep(&rest, "\n"));
    size_t count = 0;
    while (!error && rest) {
        count = parse_member(table, strsep(&rest, "\n"), count);
    }
    return error;
}

void mb_dns_free(struct mb_dns_table *table) {
    free(table->members);
    free(table->names);
    free(table->text);
    free(table->file);
    free(table);
}

static int has_member(const struct mb_dns_table *table, const char *id) {
    for (size_t i = 0; i < table->member_count; i++) {
        if (!strcmp(table->members[i].id, id)) {
            return 1;
        }
    }
    return 0;
}

/* What is asked for, on one network: the name may have the network's behind it. */
struct wanted {
    const char *name;
    size_t length;
    uint64_t hash;
};

static struct wanted wanted_on(const struct mb_dns_table *table, const struct mb_dns_query *query, int short_form) {
    size_t length = strlen(query->name), behind = strlen(table->network);
    if (short_form) {
        int fits = length > behind + 1 && query->name[length - behind - 1] == '.' &&
                   !strcasecmp(query->name + length - behind, table->network);
        length = fits ? length - behind - 1 : 0;
    }
    return (struct wanted){query->name, length, mb_dns_hash(query->name, length)};
}

static int is_called(const struct mb_dns_table *table, const struct mb_dns_member *member, struct wanted wanted) {
    for (size_t i = 0; i < member->name_count; i++) {
        const struct mb_dns_name *name = &table->names[member->name + i];
        if (name->hash == wanted.hash && !strncmp(name->text, wanted.name, wanted.length) &&
            !name->text[wanted.length]) {
            return 1;
        }
    }
    return 0;
}

/* Append the addresses of a name on a network to those found. */
static size_t find(const struct mb_dns_table *table, struct wanted wanted, struct in_addr *found, size_t count) {
    for (size_t i = 0; wanted.length && i < table->member_count && count < FOUND_MAX; i++) {
        if (is_called(table, &table->members[i], wanted)) {
            found[count++] = table->members[i].address;
        }
    }
    return count;
}

static enum mb_dns_found look_up_address(const struct mb_dns_table *table, struct in_addr address,
                                         struct mb_dns_answer *answer) {
    if ((ntohl(address.s_addr) & table->mask) != table->first) {
        return MB_DNS_OTHER;
    }
    for (size_t i = 0; i < table->member_count; i++) {
        const struct mb_dns_member *member = &table->members[i];
        if (member->address.s_addr == address.s_addr && member->name_count) {
            mb_dns_add_pointer(answer, table->names[member->name].text, table->network);
            return MB_DNS_KNOWN;
        }
    }
    return MB_DNS_NOBODY;
}

enum mb_dns_found mb_dns_look_up(const struct mb_dns_table *tables, const char *asker, unsigned turn,
                                 const struct mb_dns_query *query, struct mb_dns_answer *answer) {
    static struct in_addr found[FOUND_MAX];
    struct in_addr address;
    size_t count = 0;
    int way_out = 0, reverse = mb_dns_reverse(query->name, &address);
    for (const struct mb_dns_table *table = tables; table; table = table->next) {
        if (!has_member(table, asker)) {
            continue;
        }
        way_out |= !table->internal;
        if (reverse) {
            enum mb_dns_found of_address = look_up_address(table, address, answer);
            if (of_address != MB_DNS_OTHER) {
                return of_address;
            }
        } else if (query->plain) {
            count = find(table, wanted_on(table, query, 0), found, count);
            count = find(table, wanted_on(table, query, 1), found, count);
        }
    }
    if (!count) {
        return way_out ? MB_DNS_FORWARD : MB_DNS_OTHER;
    }
    for (size_t i = 0; i < count && (query->type == MB_DNS_A || query->type == MB_DNS_ANY); i++) {
        mb_dns_add_address(answer, found[(i + turn) % count]);
    }
    return MB_DNS_KNOWN;
}
