/* The name server's messages and tables, which make no system call. */
#include "check.h"

#include "dns/table.h"

#include <arpa/inet.h>

static uint8_t message[4096];
static size_t size;

static void put16(unsigned value) {
    message[size++] = (uint8_t)(value >> 8);
    message[size++] = (uint8_t)value;
}

static void ask(const char *name, unsigned type) {
    size = 0;
    put16(0x1234);
    put16(0x0100);
    put16(1);
    put16(0);
    put16(0);
    put16(0);
    while (*name) {
        size_t label = strcspn(name, ".");
        message[size++] = (uint8_t)label;
        memcpy(message + size, name, label);
        size += label;
        name += label + (name[label] == '.');
    }
    message[size++] = 0;
    put16(type);
    put16(1);
}

static void add_opt(unsigned udp_size, unsigned version) {
    message[11]++;
    message[size++] = 0;
    put16(41);
    put16(udp_size);
    put16(version);
    put16(0x8000);
    put16(0);
}

static struct mb_dns_table *table_of(const char *text) {
    struct mb_dns_table *table = calloc(1, sizeof *table);
    CHECK_EQUAL(mb_dns_parse(table, strdup(text)), 0);
    return table;
}

static uint8_t reply[MB_DNS_MESSAGE_MAX];

static struct mb_dns_answer answer_of(const struct mb_dns_table *tables, const char *asker, unsigned turn, size_t limit,
                                      enum mb_dns_found wanted) {
    struct mb_dns_query query;
    struct mb_dns_answer answer = {.data = reply, .limit = limit};
    CHECK_EQUAL(mb_dns_read(message, size, &query), 0);
    mb_dns_begin(&answer, message, &query, 0);
    CHECK_EQUAL(mb_dns_look_up(tables, asker, turn, &query, &answer), wanted);
    mb_dns_end(&answer, &query, 0);
    return answer;
}

static int rcode_of(void) {
    struct mb_dns_query query;
    return mb_dns_read(message, size, &query);
}

static const char *address_at(const struct mb_dns_answer *answer, unsigned number) {
    static char text[INET_ADDRSTRLEN];
    CHECK(number < answer->count);
    return inet_ntop(AF_INET, answer->data + size + number * 16 + 12, text, sizeof text);
}

static void a_name_is_read_whatever_its_case(void) {
    struct mb_dns_query query;
    ask("Db.BACK", 1);
    CHECK_EQUAL(mb_dns_read(message, size, &query), 0);
    CHECK(!strcmp(query.name, "db.back"));
    CHECK_EQUAL(query.end, size);
    CHECK(query.plain && !query.edns);
    CHECK_EQUAL(mb_dns_udp_limit(&query), 512);
}

static void what_is_no_query_gets_no_answer(void) {
    ask("db", 1);
    size_t whole = size;
    for (size = 0; size < 12; size++) {
        CHECK_EQUAL(rcode_of(), -1);
    }
    for (; size < whole; size++) {
        CHECK_EQUAL(rcode_of(), MB_DNS_FORMERR);
    }
    message[2] |= 0x80; /* an answer: two servers would answer each other for ever */
    CHECK_EQUAL(rcode_of(), -1);
}

static void invalid_queries_are_told_so(void) {
    ask("db", 1);
    message[2] |= 0x28; /* an update */
    CHECK_EQUAL(rcode_of(), MB_DNS_NOTIMP);
    ask("db", 1);
    message[5] = 2; /* two questions */
    CHECK_EQUAL(rcode_of(), MB_DNS_FORMERR);
    ask("db", 1);
    message[12] = 0xc0; /* a pointer to itself */
    message[13] = 12;
    CHECK_EQUAL(rcode_of(), MB_DNS_FORMERR);
    ask("db", 1);
    message[11] = 200; /* records that aren't there */
    CHECK_EQUAL(rcode_of(), MB_DNS_FORMERR);
    ask("db", 1);
    message[size - 1] = 3; /* class CHAOS */
    CHECK_EQUAL(rcode_of(), MB_DNS_REFUSED);
}

static void a_name_has_at_most_255_bytes(void) {
    char name[300];
    memset(name, 'a', sizeof name);
    name[63] = name[127] = name[191] = '.';
    name[253] = '\0';
    ask(name, 1);
    CHECK_EQUAL(rcode_of(), 0);
    name[253] = 'a';
    name[254] = '\0';
    ask(name, 1);
    CHECK_EQUAL(rcode_of(), MB_DNS_FORMERR);
}

static void edns_is_read_and_answered(void) {
    struct mb_dns_query query;
    struct mb_dns_table *table = table_of("network back 0 10.1.0.0/24\naaaa 10.1.0.2 db\n");
    ask("db", 1);
    size_t question = size;
    add_opt(1232, 0);
    CHECK_EQUAL(mb_dns_read(message, size, &query), 0);
    CHECK_EQUAL(mb_dns_udp_limit(&query), 1232);
    struct mb_dns_answer answer = answer_of(table, "aaaa", 0, 1232, MB_DNS_KNOWN);
    CHECK_EQUAL(answer.size, question + 16 + 11);
    CHECK_EQUAL(reply[11], 1);
    CHECK_EQUAL(reply[answer.size - 10 + 1], 41);
    CHECK_EQUAL(reply[answer.size - 4], 0x80); /* DO comes back */
    ask("db", 1);
    add_opt(100, 0);
    CHECK_EQUAL(mb_dns_read(message, size, &query), 0);
    CHECK_EQUAL(mb_dns_udp_limit(&query), 512);
    ask("db", 1);
    add_opt(1232, 1);
    CHECK_EQUAL(mb_dns_read(message, size, &query), MB_DNS_BADVERS);
    answer = (struct mb_dns_answer){.data = reply, .limit = 512};
    mb_dns_begin(&answer, message, &query, MB_DNS_BADVERS);
    mb_dns_end(&answer, &query, MB_DNS_BADVERS);
    CHECK_EQUAL(reply[3] & 15, 0);
    CHECK_EQUAL(reply[answer.size - 6], 1);
    ask("db", 1);
    add_opt(1232, 0);
    add_opt(1232, 0);
    CHECK_EQUAL(rcode_of(), MB_DNS_FORMERR);
    mb_dns_free(table);
}

static void only_members_of_a_network_see_its_names(void) {
    struct mb_dns_table *back = table_of("network back 0 10.1.0.0/24\naaaa 10.1.0.2 db Postgres\nbbbb 10.1.0.3 web\n");
    struct mb_dns_table *front = table_of("network front 0 10.2.0.0/24\nbbbb 10.2.0.3 web\ncccc 10.2.0.4 proxy\n");
    back->next = front;
    ask("DB", 1);
    struct mb_dns_answer answer = answer_of(back, "bbbb", 0, 512, MB_DNS_KNOWN);
    CHECK(!strcmp(address_at(&answer, 0), "10.1.0.2"));
    CHECK_EQUAL(answer_of(back, "cccc", 0, 512, MB_DNS_FORWARD).count, 0);
    CHECK_EQUAL(answer_of(back, "dddd", 0, 512, MB_DNS_OTHER).count, 0);
    const char *const names[] = {"postgres", "db.back", "postgres.back"};
    for (size_t i = 0; i < 3; i++) {
        ask(names[i], 1);
        CHECK_EQUAL(answer_of(back, "bbbb", 0, 512, MB_DNS_KNOWN).count, 1);
    }
    ask("db.front", 1);
    answer_of(back, "bbbb", 0, 512, MB_DNS_FORWARD);
    ask("web", 1);
    CHECK_EQUAL(answer_of(back, "bbbb", 0, 512, MB_DNS_KNOWN).count, 2);
    CHECK_EQUAL(answer_of(back, "aaaa", 0, 512, MB_DNS_KNOWN).count, 1);
    mb_dns_free(front);
    mb_dns_free(back);
}

static void a_known_name_without_such_a_record_has_no_data(void) {
    struct mb_dns_table *table = table_of("network back 1 10.1.0.0/24\naaaa 10.1.0.2 db\n");
    const unsigned types[] = {28, 15, 16, 33, 65};
    for (size_t i = 0; i < 5; i++) {
        ask("db", types[i]);
        CHECK_EQUAL(answer_of(table, "aaaa", 0, 512, MB_DNS_KNOWN).count, 0);
        CHECK_EQUAL(reply[3] & 15, MB_DNS_NOERROR);
    }
    ask("example.org", 1);
    answer_of(table, "aaaa", 0, 512, MB_DNS_OTHER); /* internal: nobody else is asked */
    mb_dns_free(table);
}

static void several_addresses_take_turns(void) {
    struct mb_dns_table *table = table_of("network back 0 10.1.0.0/24\na 10.1.0.2 x\nb 10.1.0.3 x\nc 10.1.0.4 x\n");
    ask("x", 1);
    const char *const first[] = {"10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.2"};
    for (unsigned turn = 0; turn < 4; turn++) {
        struct mb_dns_answer answer = answer_of(table, "a", turn, 512, MB_DNS_KNOWN);
        CHECK_EQUAL(answer.count, 3);
        CHECK(!strcmp(address_at(&answer, 0), first[turn]));
    }
    mb_dns_free(table);
}

static void an_address_has_a_name(void) {
    struct mb_dns_table *table = table_of("network back 0 10.1.0.0/24\naaaa 10.1.0.2 db all\n");
    ask("2.0.1.10.in-addr.arpa", 12);
    struct mb_dns_answer answer = answer_of(table, "aaaa", 0, 512, MB_DNS_KNOWN);
    CHECK_EQUAL(answer.count, 1);
    CHECK(!memcmp(reply + answer.size - 9, "\2db\4back", 9));
    ask("9.0.1.10.in-addr.arpa", 12);
    answer_of(table, "aaaa", 0, 512, MB_DNS_NOBODY);
    const char *const others[] = {"2.0.2.10.in-addr.arpa", "256.0.1.10.in-addr.arpa", "0.1.10.in-addr.arpa",
                                  "in-addr.arpa", "1.2.0.1.10.in-addr.arpa"};
    for (size_t i = 0; i < 5; i++) {
        ask(others[i], 12);
        answer_of(table, "aaaa", 0, 512, MB_DNS_FORWARD);
    }
    mb_dns_free(table);
}

static void what_does_not_fit_is_cut_and_said_so(void) {
    static char text[200000] = "network back 0 10.0.0.0/8\nme 10.0.0.1 me\n";
    size_t end = strlen(text);
    for (int i = 0; i < 4000; i++) {
        end += (size_t)snprintf(text + end, sizeof text - end, "id%d 10.1.%d.%d all\n", i, i / 256, i % 256);
    }
    struct mb_dns_table *table = table_of(text);
    ask("all", 1);
    struct mb_dns_answer answer = answer_of(table, "me", 0, 512, MB_DNS_KNOWN);
    CHECK(answer.size <= 512 && answer.count > 25 && answer.truncated && reply[2] & 2);
    answer = answer_of(table, "me", 0, sizeof reply, MB_DNS_KNOWN);
    CHECK(answer.count == 4000 && !answer.truncated && !(reply[2] & 2));
    mb_dns_free(table);
}

static void invalid_lines_of_a_table_are_left_out(void) {
    struct mb_dns_table *table =
        table_of("network back 0 10.1.0.0/24\n\naaaa\nbbbb x y\n 10.1.0.9 z\ncccc 10.1.0.2 db\n");
    CHECK_EQUAL(table->member_count, 1);
    mb_dns_free(table);
    const char *const others[] = {"", "network back 0", "network back 0 10.1.0.0", "network back 0 10.1.0.0/33",
                                  "x y z 1/2"};
    for (size_t i = 0; i < 5; i++) {
        table = calloc(1, sizeof *table);
        CHECK(mb_dns_parse(table, strdup(others[i])) != 0);
        mb_dns_free(table);
    }
}

static void only_the_answer_to_a_question_counts(void) {
    uint8_t answer[512];
    ask("Example.org", 1);
    memcpy(answer, message, size);
    answer[2] |= 0x80;
    CHECK(mb_dns_answers(answer, size, message, size, 0x1234));
    answer[13] = 'e';
    CHECK(mb_dns_answers(answer, size, message, size, 0x1234));
    CHECK(!mb_dns_answers(answer, size, message, size, 0x1235));
    CHECK(!mb_dns_answers(answer, size - 1, message, size, 0x1234));
    answer[14] = 'y';
    CHECK(!mb_dns_answers(answer, size, message, size, 0x1234));
    CHECK(!mb_dns_answers(message, size, message, size, 0x1234));
}

int main(void) {
    const struct test tests[] = {
        TEST(a_name_is_read_whatever_its_case),
        TEST(what_is_no_query_gets_no_answer),
        TEST(invalid_queries_are_told_so),
        TEST(a_name_has_at_most_255_bytes),
        TEST(edns_is_read_and_answered),
        TEST(only_members_of_a_network_see_its_names),
        TEST(a_known_name_without_such_a_record_has_no_data),
        TEST(several_addresses_take_turns),
        TEST(an_address_has_a_name),
        TEST(what_does_not_fit_is_cut_and_said_so),
        TEST(invalid_lines_of_a_table_are_left_out),
        TEST(only_the_answer_to_a_question_counts),
    };
    const size_t count = sizeof tests / sizeof *tests;
    for (size_t i = 0; i < count; i++) {
        running = tests[i].name;
        tests[i].run();
    }
    printf("test_dns: %zu passed\n", count);
    return 0;
}
