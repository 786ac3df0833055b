/* Feeds fuzz_plan.c from valid plans with something changed, the same ones at every run: random
 * bytes alone would never come past the header. Given a directory, writes valid plans into it
 * instead, for libFuzzer to start from. */
#include "check.h"
#include "draft.h"
#include "fuzz_plan.h"

#define ROUNDS 300000

static uint64_t state = 0x9e3779b97f4a7c15ull;

/* xorshift64, Marsaglia 2003. */
static uint64_t next_random(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static uint64_t below(uint64_t limit) { return next_random() % limit; }

static uint64_t random_argument(struct draft *draft, char kind) {
    const char *const words[] = {"", "/", "/etc/hosts", "a", "mode=0755,size=64k", "lowerdir=0:1"};
    const char *some[4] = {0};
    size_t count = sizeof words / sizeof *words;
    switch (kind) {
    case 'u':
        return next_random() >> below(64);
    case 'z':
        if (below(2)) {
            return MB_NONE;
        }
        /* fall through */
    case 's':
        return draft_string(draft, words[below(count)]);
    case 'b':
        return draft_bytes(draft, &state, below(sizeof state + 1));
    case 'v':
        for (size_t i = 0, length = below(4); i < length; i++) {
            some[i] = words[below(count)];
        }
        return draft_vector(draft, some);
    case 'r':
        return below(2) ? MB_HOST : below(MB_SLOTS);
    default:
        return below(MB_SLOTS);
    }
}

static struct draft random_draft(void) {
    struct draft draft = draft_new();
    for (size_t i = 0, length = below(6); i < length; i++) {
        /* Every third one is exec, for its vectors. */
        unsigned code = below(3) ? (unsigned)below(mb_op_count) : MB_OP_exec;
        struct mb_op *op = &draft.ops[draft.header.op_count++];
        *op = (struct mb_op){.code = code};
        for (size_t k = 0; mb_op_signatures[code].arguments[k]; k++) {
            op->argument[k] = random_argument(&draft, mb_op_signatures[code].arguments[k]);
        }
    }
    return draft;
}

/* Change a word, a half of one or a byte to something that is likely to hurt. */
static void mutate(unsigned char *buffer, size_t size) {
    const uint64_t edges[] = {0,          1,          7,          8,          size,       size - 1,   DRAFT_VECTORS,
                              UINT64_MAX, UINT32_MAX, 1ull << 31, 1ull << 32, 1ull << 61, 1ull << 63, MB_SLOTS};
    size_t widths[] = {1, 4, 8}, width = widths[below(3)];
    size_t from = below(8) ? sizeof(struct mb_plan_header) : 0;
    size_t at = from + below(size - from + 1) / width * width;
    uint64_t value = below(2) ? edges[below(sizeof edges / sizeof *edges)] : below(2) ? next_random() : below(2 * size);
    if (at + width <= size) {
        memcpy(buffer + at, &value, width);
    }
}

static void write_seeds(const char *directory) {
    for (int i = 0; i < 64; i++) {
        struct draft draft = random_draft();
        size_t size;
        void *buffer = draft_buffer(&draft, &size);
        char path[4096];
        snprintf(path, sizeof path, "%s/seed-%02d", directory, i);
        FILE *file = fopen(path, "wb");
        CHECK(file && fwrite(buffer, size, 1, file) == 1 && !fclose(file));
        free(buffer);
    }
}

int main(int argc, char **argv) {
    if (argc > 1) {
        write_seeds(argv[1]);
        return 0;
    }
    unsigned loaded = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct draft draft = random_draft();
        size_t size;
        unsigned char *buffer = draft_buffer(&draft, &size);
        if (round % 16 == 0) {
            CHECK(LLVMFuzzerTestOneInput(buffer, size));
        }
        for (uint64_t changes = 1 + below(4); changes; changes--) {
            mutate(buffer, size);
        }
        loaded += LLVMFuzzerTestOneInput(buffer, size - (below(16) ? 0 : below(size))) != 0;
        free(buffer);
    }
    CHECK(loaded > ROUNDS / 20 && loaded < ROUNDS - ROUNDS / 20); /* else the changes test nothing */
    printf("mutate_plan: %u of %u changed plans still loaded, all could be followed\n", loaded, ROUNDS);
    return 0;
}
