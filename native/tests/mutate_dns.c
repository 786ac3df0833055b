/* Feeds fuzz_dns.c with messages and tables that have something changed, the same ones at every run. Given a
 * directory, writes what it begins with into it, for libFuzzer to start from. */
#include "check.h"
#include "fuzz_dns.h"

#define ROUNDS 300000

static uint64_t state = 0x9e3779b97f4a7c15ull;

/* xorshift64, Marsaglia 2003. */
static uint64_t next_random(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static uint64_t below(uint64_t limit) { return next_random() % limit; }

#define HEADER(questions, more) "\x12\x34\x01\x00\x00" questions "\x00\x00\x00\x00\x00" more
#define OPT "\0\0\x29\x04\xd0\0\0\x80\0\0\0"
#define SEED(text)                                                                                                     \
    { text, sizeof(text) - 1 }

static const struct {
    const char *data;
    size_t size;
} seeds[] = {
    SEED("\0" HEADER("\x01", "\x00") "\x02"
                                     "db\0\0\x01\0\x01"),
    SEED("\0" HEADER("\x01", "\x01") "\x03"
                                     "ALL\x04"
                                     "back\0\0\x01\0\x01" OPT),
    SEED("\0" HEADER("\x01", "\x01") "\x08"
                                     "postgres\0\0\x1c\0\x01" OPT),
    SEED("\0" HEADER("\x01", "\x00") "\x01"
                                     "4\x01"
                                     "0\x01"
                                     "1\x02"
                                     "10\x07"
                                     "in-addr\x04"
                                     "arpa\0\0\x0c\0\x01"),
    SEED("\0" HEADER("\x01", "\x01") "\x03"
                                     "www\x07"
                                     "example\x03"
                                     "org\0\0\xff\0\x01" OPT),
    SEED("\x01\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x03"
         "all\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x0a\x01\0\x03"),
    SEED("\x02network back 0 10.1.0.0/24\naaaa 10.1.0.2 db all\nbbbb 10.1.0.3 all web\n"),
    SEED("\x02network lab 1 10.1.0.0/30\naaaa 10.1.0.2\ncccc 10.1.0.3 all\n\n x\n"),
};

enum { SEEDS = sizeof seeds / sizeof *seeds };

static size_t mutated(uint8_t *data, size_t most) {
    size_t seed = below(SEEDS), size = seeds[seed].size;
    memcpy(data, seeds[seed].data, size);
    for (uint64_t changes = below(5); changes; changes--) {
        static const uint8_t edges[] = {0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff, ' ', '\n', '.', '/'};
        size_t at = 1 + below(size - 1);
        data[at] = below(2) ? edges[below(sizeof edges)] : (uint8_t)next_random();
    }
    if (!below(8)) { /* grow by what it has already */
        size_t from = 1 + below(size - 1), more = below(size - from) + 1;
        more = size + more > most ? most - size : more;
        memmove(data + size, data + from, more);
        size += more;
    }
    return below(8) ? size : 1 + below(size);
}

int main(int argc, char **argv) {
    for (size_t i = 0; argc > 1 && i < SEEDS; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/seed-%02zu", argv[1], i);
        FILE *file = fopen(path, "wb");
        CHECK(file && fwrite(seeds[i].data, seeds[i].size, 1, file) == 1 && !fclose(file));
    }
    if (argc > 1) {
        return 0;
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint8_t data[1024];
        LLVMFuzzerTestOneInput(data, mutated(data, sizeof data));
    }
    CHECK(fuzz_dns_answered > ROUNDS / 20 && fuzz_dns_answered < ROUNDS - ROUNDS / 20); /* else this tests nothing */
    printf("mutate_dns: %u of %u changed inputs got an address\n", fuzz_dns_answered, ROUNDS);
    return 0;
}
