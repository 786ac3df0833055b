/* Any bytes that a container sends, that another server answers, or that are a table: nothing is read or written
 * beside them, and an answer is a message that keeps its limit. */
#include "fuzz_dns.h"

#include "dns/table.h"

#include <stdlib.h>
#include <string.h>

static const char table_text[] = "network back 0 10.1.0.0/24\n"
                                 "aaaa 10.1.0.2 db Postgres\n"
                                 "bbbb 10.1.0.3 web all\n"
                                 "cccc 10.1.0.4 cache all\n";
static const uint8_t plain_query[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03"
                                     "all\0\0\x01\0\x01";

unsigned fuzz_dns_answered;

/* A copy of exactly the size, so that a sanitizer guards what is beside. */
static void *copy_of(const void *data, size_t size, size_t more) {
    char *copy = calloc(1, size + more ? size + more : 1);
    if (!copy) {
        abort();
    }
    memcpy(copy, data, size);
    return copy;
}

static struct mb_dns_table *table_of(const void *text, size_t size) {
    struct mb_dns_table *table = calloc(1, sizeof *table);
    if (!table || mb_dns_parse(table, copy_of(text, size, 1))) {
        mb_dns_free(table);
        return NULL;
    }
    return table;
}

static void ask(const struct mb_dns_table *table, const uint8_t *message, size_t size) {
    struct mb_dns_query query;
    int rcode = mb_dns_read(message, size, &query);
    if (rcode < 0) {
        return;
    }
    size_t limit = mb_dns_udp_limit(&query);
    struct mb_dns_answer answer = {.data = copy_of("", 0, limit), .limit = limit};
    mb_dns_begin(&answer, message, &query, rcode);
    if (!rcode && table) {
        mb_dns_look_up(table, "aaaa", 1, &query, &answer);
    }
    mb_dns_end(&answer, &query, rcode);
    struct mb_dns_query again;
    answer.data[2] &= 0x7f; /* as if it were a query: then its records must parse */
    int read = mb_dns_read(answer.data, answer.size, &again);
    if (answer.size > limit || (query.end && (read == MB_DNS_FORMERR || again.edns != query.edns))) {
        abort();
    }
    fuzz_dns_answered += answer.count > 0;
    free(answer.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) {
        return 0;
    }
    uint8_t *rest = copy_of(data + 1, size - 1, 0);
    int kind = *data % FUZZ_KINDS;
    struct mb_dns_table *table =
        kind == FUZZ_TABLE ? table_of(rest, size - 1) : table_of(table_text, sizeof table_text - 1);
    if (kind == FUZZ_QUERY) {
        ask(table, rest, size - 1);
    } else if (kind == FUZZ_TABLE) {
        ask(table, plain_query, sizeof plain_query - 1);
    } else {
        mb_dns_answers(rest, size - 1, plain_query, sizeof plain_query - 1, 0x1234);
    }
    if (table) {
        mb_dns_free(table);
    }
    free(rest);
    return 0;
}
