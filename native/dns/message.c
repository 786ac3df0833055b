#include "dns/message.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum {
    QR = 0x8000,
    OPCODE = 0x7800,
    TC = 0x0200,
    RD = 0x0100,
    RA = 0x0080,
    CD = 0x0010,
    IN = 1,
    OPT = 41,
    DO = 0x8000,
    OPT_SIZE = 11,
    LABEL_MAX = 63,
    POINTER = 0xc0,
};

static uint16_t get(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

static void put(uint8_t *at, size_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static int is_of_host_name(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_'; }

/* Read the question's name; returns where it ends, 0 if it is invalid. */
static size_t read_name(const uint8_t *message, size_t size, struct mb_dns_query *query) {
    size_t at = MB_DNS_HEADER, length = 0;
    query->plain = 1;
    for (;;) {
        if (at >= size || message[at] > LABEL_MAX) {
            return 0;
        }
        size_t label = message[at++];
        if (!label) {
            break;
        }
        if (label > size - at || length + label + 1 > MB_DNS_NAME_MAX - 1) {
            return 0;
        }
        for (size_t i = 0; i < label; i++) {
            char c = (char)message[at + i];
            c = c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
            query->plain &= is_of_host_name(c);
            query->name[length++] = c;
        }
        query->name[length++] = '.';
        at += label;
    }
    query->name[length ? length - 1 : 0] = '\0';
    return at;
}

/* Return where a record's name ends; 0 if it is invalid. A pointer is the end of a name. */
static size_t skip_name(const uint8_t *message, size_t size, size_t at) {
    while (at < size) {
        uint8_t label = message[at];
        if (label >= POINTER) {
            return size - at >= 2 ? at + 2 : 0;
        }
        if (label > LABEL_MAX || label >= size - at) {
            return 0;
        }
        at += 1u + label;
        if (!label) {
            return at;
        }
    }
    return 0;
}

/* Look for an OPT record among those after the question. */
static int read_records(const uint8_t *message, size_t size, struct mb_dns_query *query) {
    unsigned count = 0u + get(message + 6) + get(message + 8) + get(message + 10);
    size_t at = query->end;
    while (count--) {
        size_t name = at;
        at = skip_name(message, size, at);
        if (!at || size - at < 10 || get(message + at + 8) > size - at - 10) {
            return MB_DNS_FORMERR;
        }
        if (get(message + at) == OPT) {
            if (query->edns || message[name]) {
                return MB_DNS_FORMERR;
            }
            query->edns = 1;
            query->udp_size = get(message + at + 2);
            query->edns_flags = get(message + at + 6);
            if (message[at + 5]) {
                return MB_DNS_BADVERS;
            }
        }
        at += 10u + get(message + at + 8);
    }
    return MB_DNS_NOERROR;
}

int mb_dns_read(const uint8_t *message, size_t size, struct mb_dns_query *query) {
    memset(query, 0, sizeof *query);
    if (size < MB_DNS_HEADER || get(message + 2) & QR) {
        return -1;
    }
    query->id = get(message);
    query->flags = get(message + 2);
    if (query->flags & OPCODE) {
        return MB_DNS_NOTIMP;
    }
    size_t end = get(message + 4) == 1 ? read_name(message, size, query) : 0;
    if (!end || size - end < 4) {
        return MB_DNS_FORMERR;
    }
    query->type = get(message + end);
    query->class = get(message + end + 2);
    query->end = end + 4;
    int rcode = read_records(message, size, query);
    return rcode || query->class == IN ? rcode : MB_DNS_REFUSED;
}

size_t mb_dns_udp_limit(const struct mb_dns_query *query) {
    size_t size = query->edns ? query->udp_size : MB_DNS_PLAIN_UDP;
    return size < MB_DNS_PLAIN_UDP ? MB_DNS_PLAIN_UDP : size > MB_DNS_LARGE_UDP ? MB_DNS_LARGE_UDP : size;
}

void mb_dns_begin(struct mb_dns_answer *answer, const uint8_t *message, const struct mb_dns_query *query, int rcode) {
    memset(answer->data, 0, MB_DNS_HEADER);
    put(answer->data, query->id);
    put(answer->data + 2, QR | RA | (query->flags & (OPCODE | RD | CD)) | ((size_t)rcode & 15));
    answer->size = MB_DNS_HEADER;
    answer->count = 0;
    answer->truncated = 0;
    if (query->end) { /* at most MB_DNS_HEADER + 256 + 4 bytes, so it fits */
        put(answer->data + 4, 1);
        memcpy(answer->data + MB_DNS_HEADER, message + MB_DNS_HEADER, query->end - MB_DNS_HEADER);
        answer->size = query->end;
    }
}

/* Add a record with the question's name and class IN; returns where its `size` bytes go, NULL if it doesn't fit.
 * Its time to live is 0: a name may lead elsewhere at any time, and asking again costs little. */
static uint8_t *add_record(struct mb_dns_answer *answer, uint16_t type, size_t size) {
    size_t whole = 12 + size;
    if (answer->truncated || answer->limit - answer->size < whole + OPT_SIZE) {
        answer->truncated = 1;
        return NULL;
    }
    uint8_t *at = answer->data + answer->size;
    put(at, POINTER << 8 | MB_DNS_HEADER);
    put(at + 2, type);
    put(at + 4, IN);
    memset(at + 6, 0, 4);
    put(at + 10, size);
    answer->size += whole;
    answer->count++;
    return at + 12;
}

void mb_dns_add_address(struct mb_dns_answer *answer, struct in_addr address) {
    uint8_t *at = add_record(answer, MB_DNS_A, sizeof address);
    if (at) {
        memcpy(at, &address, sizeof address);
    }
}

/* Write `text` as labels; returns where they end, or NULL if it is no name of the DNS. */
static uint8_t *put_labels(uint8_t *at, const uint8_t *end, const char *text) {
    while (*text) {
        size_t label = strcspn(text, ".");
        if (!label || label > LABEL_MAX || label + 2 > (size_t)(end - at)) {
            return NULL;
        }
        *at++ = (uint8_t)label;
        memcpy(at, text, label);
        at += label;
        text += label + (text[label] == '.');
    }
    return at;
}

void mb_dns_add_pointer(struct mb_dns_answer *answer, const char *name, const char *network) {
    uint8_t labels[MB_DNS_NAME_MAX], *at = put_labels(labels, labels + sizeof labels, name);
    uint8_t *whole = at ? put_labels(at, labels + sizeof labels, network) : NULL;
    at = whole ? whole : at;
    if (!at) {
        return;
    }
    *at++ = 0;
    size_t size = (size_t)(at - labels);
    uint8_t *to = add_record(answer, MB_DNS_PTR, size);
    if (to) {
        memcpy(to, labels, size);
    }
}

void mb_dns_end(struct mb_dns_answer *answer, const struct mb_dns_query *query, int rcode) {
    put(answer->data + 6, answer->count);
    if (answer->truncated) {
        answer->data[2] |= TC >> 8;
    }
    if (query->edns) {
        uint8_t *at = answer->data + answer->size;
        memset(at, 0, OPT_SIZE);
        put(at + 1, OPT);
        put(at + 3, MB_DNS_LARGE_UDP);
        at[5] = (uint8_t)(rcode >> 4);
        put(at + 7, query->edns_flags & DO);
        put(answer->data + 10, 1);
        answer->size += OPT_SIZE;
    }
}

/* Of letters the case doesn't matter, and nobody has to keep it. */
static int equal_names(const uint8_t *one, const uint8_t *other, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (tolower(one[i]) != tolower(other[i])) {
            return 0;
        }
    }
    return 1;
}

int mb_dns_answers(const uint8_t *answer, size_t size, const uint8_t *query, size_t query_size, uint16_t id) {
    struct mb_dns_query asked;
    if (size < MB_DNS_HEADER || get(answer) != id || !(get(answer + 2) & QR) ||
        mb_dns_read(query, query_size, &asked) < 0 || !asked.end) {
        return 0;
    }
    if (get(answer + 4) == 0 && answer[3] & 15) {
        return 1; /* some servers refuse without repeating the question */
    }
    /* A label's length is below 64, which is no letter. */
    return get(answer + 4) == 1 && size >= asked.end && !memcmp(answer + asked.end - 4, query + asked.end - 4, 4) &&
           equal_names(answer + MB_DNS_HEADER, query + MB_DNS_HEADER, asked.end - 4 - MB_DNS_HEADER);
}

int mb_dns_reverse(const char *name, struct in_addr *address) {
    static const char below[] = ".in-addr.arpa";
    size_t length = strlen(name), number = length - (sizeof below - 1);
    unsigned part[4];
    char text[INET_ADDRSTRLEN];
    int end = 0;
    if (length < sizeof below || number >= sizeof text || strcmp(name + number, below)) {
        return 0;
    }
    memcpy(text, name, number);
    text[number] = '\0';
    if (sscanf(text, "%3u.%3u.%3u.%3u%n", &part[0], &part[1], &part[2], &part[3], &end) != 4 || text[end] ||
        part[0] > 255 || part[1] > 255 || part[2] > 255 || part[3] > 255) {
        return 0;
    }
    address->s_addr = htonl(part[3] << 24 | part[2] << 16 | part[1] << 8 | part[0]);
    return 1;
}
