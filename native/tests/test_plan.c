/* mb_plan_load: what is valid loads and points where it should, everything else is refused. */
#include "check.h"
#include "draft.h"

#include <errno.h>

#define U(number) ((uint64_t)(number))

/* Load a draft: 0 or the negative errno; *bad_op as mb_plan_load leaves it. */
static int load(const struct draft *draft, uint32_t *bad_op) {
    size_t size;
    void *buffer = draft_buffer(draft, &size);
    struct mb_plan plan;
    int error = mb_plan_load(buffer, size, &plan, bad_op);
    free(buffer);
    return error;
}

static void check_loads(const struct draft *draft) {
    uint32_t bad_op;
    CHECK_EQUAL(load(draft, &bad_op), 0);
}

static void check_refused(const struct draft *draft, uint32_t wanted) {
    uint32_t bad_op = UINT32_MAX;
    CHECK_EQUAL(load(draft, &bad_op), -EINVAL);
    CHECK_EQUAL(bad_op, wanted);
}

/* ---- what is valid ------------------------------------------------------------------------ */

static void an_empty_plan_loads(void) {
    struct draft draft = draft_new();
    draft.header.blob_size = 0;
    check_loads(&draft);
}

static void arguments_point_into_the_buffer(void) {
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_mount, draft_string(&draft, "tmpfs"), MB_NONE, draft_string(&draft, ""), MB_HOST,
             draft_string(&draft, "/mnt"), U(14), U(9));
    draft_op(&draft, MB_OP_write_fd, U(MB_SLOTS - 1), draft_bytes(&draft, "a\0b", 3));
    draft_exec(&draft, STRINGS("/bin/a", "/bin/b"), STRINGS("a", "1"), STRINGS());
    size_t size;
    char *buffer = draft_buffer(&draft, &size);
    struct mb_plan plan;
    uint32_t bad_op;
    CHECK_EQUAL(mb_plan_load(buffer, size, &plan, &bad_op), 0);
    CHECK_EQUAL(plan.op_count, 3);

    const uint64_t *mount = plan.ops[0].argument;
    CHECK(!strcmp((char *)mount[0], "tmpfs") && !mount[1] && !*(char *)mount[2] && !strcmp((char *)mount[4], "/mnt"));
    CHECK(mount[3] == MB_HOST && mount[5] == 14 && mount[6] == 9);
    struct mb_bytes bytes = mb_plan_bytes(&plan, plan.ops[1].argument[1]);
    CHECK(bytes.size == 3 && !memcmp(bytes.data, "a\0b", 3));
    char **candidates = (char **)plan.ops[2].argument[0], **argv = (char **)plan.ops[2].argument[1];
    CHECK(!strcmp(candidates[0], "/bin/a") && !strcmp(candidates[1], "/bin/b") && !candidates[2]);
    CHECK(!strcmp(argv[0], "a") && !strcmp(argv[1], "1") && !argv[2] && !*(char **)plan.ops[2].argument[2]);
    free(buffer);
}

static void every_operation_loads_with_plain_arguments(void) {
    for (unsigned code = 0; code < mb_op_count; code++) {
        const char *kinds = mb_op_signatures[code].arguments;
        CHECK(strlen(kinds) <= MB_OP_ARGUMENTS && strspn(kinds, "uszbvfro") == strlen(kinds));
        struct draft draft = draft_new();
        struct mb_op *op = &draft.ops[draft.header.op_count++];
        *op = (struct mb_op){.code = code};
        for (size_t i = 0; kinds[i]; i++) {
            op->argument[i] = kinds[i] == 'v'   ? draft_vector(&draft, STRINGS("a"))
                              : kinds[i] == 'b' ? draft_bytes(&draft, "abc", 3)
                              : kinds[i] == 's' ? draft_string(&draft, "abc")
                              : kinds[i] == 'z' ? MB_NONE
                                                : 1;
        }
        check_loads(&draft);
    }
}

/* ---- the header --------------------------------------------------------------------------- */

static void a_wrong_header_is_refused(void) {
    struct draft draft = draft_new();
    draft.header.magic++;
    check_refused(&draft, 0);

    struct mb_plan plan;
    uint32_t bad_op;
    uint64_t words[16] = {MB_PLAN_MAGIC};
    for (size_t size = 0; size < sizeof(struct mb_plan_header); size++) {
        CHECK_EQUAL(mb_plan_load(words, size, &plan, &bad_op), -EINVAL);
    }
    CHECK_EQUAL(mb_plan_load(words, sizeof(struct mb_plan_header), &plan, &bad_op), 0);
    CHECK_EQUAL(mb_plan_load((char *)words + 1, sizeof(struct mb_plan_header), &plan, &bad_op), -EINVAL);
}

static void sizes_must_add_up(void) {
    struct {
        struct mb_plan_header header;
        struct mb_op op;
        char blob[8];
    } buffer = {.header = {.magic = MB_PLAN_MAGIC}};
    const struct {
        uint32_t op_count, blob_size;
        int error;
    } cases[] = {
        {1, 8, 0},
        {0, 8 + sizeof(struct mb_op), 0},
        {1, 7, -EINVAL},
        {1, 9, -EINVAL},
        {2, 8, -EINVAL},
        {0, 8, -EINVAL},
        {1, UINT32_MAX, -EINVAL},
        {MB_OPS_MAX + 1, 8, -EINVAL},
        {UINT32_MAX, UINT32_MAX, -EINVAL},
        /* In 32 bits the count of operations would come round to 1. */
        {1 + (1u << 29), 8, -EINVAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mb_plan plan;
        uint32_t bad_op;
        buffer.op = (struct mb_op){.code = MB_OP_umask};
        buffer.header.op_count = cases[i].op_count;
        buffer.header.blob_size = cases[i].blob_size;
        CHECK_EQUAL(mb_plan_load(&buffer, sizeof buffer, &plan, &bad_op), cases[i].error);
    }
}

/* ---- operations --------------------------------------------------------------------------- */

static void unknown_operations_are_refused(void) {
    const uint32_t codes[] = {MB_OP_COUNT, MB_OP_COUNT + 1, 1u << 31, UINT32_MAX};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        struct draft draft = draft_new();
        draft_op(&draft, MB_OP_setsid);
        draft_op(&draft, MB_OP_setsid)->code = codes[i];
        check_refused(&draft, 1);
    }
}

static void what_is_reserved_must_be_zero(void) {
    struct draft draft = draft_new();
    struct mb_op *op = draft_op(&draft, MB_OP_setsid);
    op->reserved = 1;
    check_refused(&draft, 0);
    op->reserved = 0;
    check_loads(&draft);
    for (size_t i = 0; i < MB_OP_ARGUMENTS; i++) {
        op->argument[i] = 1;
        check_refused(&draft, 0);
        op->argument[i] = 0;
    }
}

static void slots_have_an_end(void) {
    const uint64_t wrong[] = {MB_SLOTS, MB_SLOTS + 1, 1ull << 32, 1ull << 63, MB_HOST - 1};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct draft draft = draft_new();
        struct mb_op *op = draft_op(&draft, MB_OP_recv_fd, U(0), U(0)); /* f o */
        op->argument[0] = wrong[i];
        check_refused(&draft, 0);
        op->argument[0] = MB_SLOTS - 1;
        op->argument[1] = wrong[i];
        check_refused(&draft, 0);
        op->argument[1] = MB_SLOTS - 1;
        check_loads(&draft);
    }
    const uint64_t no_roots[] = {MB_SLOTS, MB_NO_LINKS | MB_SLOTS, MB_NO_LINKS << 1, 1ull << 63, MB_HOST - 1};
    for (size_t i = 0; i < sizeof no_roots / sizeof *no_roots; i++) {
        struct draft draft = draft_new();
        draft_op(&draft, MB_OP_mask, MB_NO_LINKS | (MB_SLOTS - 1), draft_string(&draft, "/")); /* r s */
        check_loads(&draft);
        draft_op(&draft, MB_OP_mask, no_roots[i], draft_string(&draft, "/"));
        check_refused(&draft, 1);
    }
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_mask, MB_HOST, draft_string(&draft, "/"));
    check_loads(&draft);
    draft_op(&draft, MB_OP_pivot_root, MB_HOST);
    check_refused(&draft, 1);
}

/* ---- strings and bytes -------------------------------------------------------------------- */

static void strings_end_within_the_blob(void) {
    struct draft draft = draft_new();
    uint64_t offset = draft_string(&draft, "/x"), end = draft.header.blob_size;
    struct mb_op *op = draft_op(&draft, MB_OP_chdir, offset);
    check_loads(&draft);
    op->argument[0] = end - 1; /* the NUL alone: an empty string */
    check_loads(&draft);
    const uint64_t wrong[] = {end, end + 1, MB_NONE, MB_NONE - 1, 1ull << 32 | offset, 1ull << 63 | offset};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        op->argument[0] = wrong[i];
        check_refused(&draft, 0);
    }
    op->argument[0] = offset;
    draft.blob[end - 1] = 'y';
    check_refused(&draft, 0);
    draft.header.blob_size = 0;
    op->argument[0] = 0;
    check_refused(&draft, 0);
}

static void bytes_lie_within_the_blob(void) {
    struct draft draft = draft_new();
    uint64_t at = draft_bytes(&draft, "abcd", 4), end = draft.header.blob_size;
    struct mb_op *op = draft_op(&draft, MB_OP_setgroups, at);
    check_loads(&draft);
    op->argument[0] = end; /* nothing, at the end */
    check_loads(&draft);
    const uint64_t wrong[] = {
        at + 1, at + (1ull << 32), end + 1, 1ull << 32 | end, U(UINT32_MAX), U(UINT32_MAX) << 32, UINT64_MAX,
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        op->argument[0] = wrong[i];
        check_refused(&draft, 0);
    }
}

/* ---- vectors ------------------------------------------------------------------------------ */

static void set_word(struct draft *draft, uint64_t offset, uint64_t word) {
    memcpy(draft->blob + offset, &word, sizeof word);
}

static void vectors_lie_within_the_blob(void) {
    struct draft draft = draft_new();
    struct mb_op *op = draft_exec(&draft, STRINGS(), STRINGS(), STRINGS("a", "b"));
    uint64_t at = op->argument[2];
    check_loads(&draft);
    const uint64_t counts[] = {
        3,
        draft.header.blob_size / 8,
        1ull << 32,
        1ull << 60,
        1ull << 61,
        (1ull << 61) - 1,
        1ull << 63,
        UINT64_MAX,
        UINT64_MAX - 1,
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        set_word(&draft, at, counts[i]);
        check_refused(&draft, 0); /* 3: the word behind the vector is no offset of a string */
    }
    set_word(&draft, at, 2);
    const uint64_t wrong[] = {
        at + 1, at + 4, draft.header.blob_size, U(draft.header.blob_size + 7) & ~7ull, 1ull << 32, MB_NONE, MB_NONE - 7,
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        op->argument[2] = wrong[i];
        check_refused(&draft, 0);
    }
}

static void a_vector_may_end_the_blob(void) {
    struct draft draft = draft_new();
    struct mb_op *op = draft_exec(&draft, STRINGS(), STRINGS(), STRINGS());
    CHECK_EQUAL(op->argument[2], 16);
    draft.header.blob_size = 24;
    check_loads(&draft);
    for (uint32_t missing = 1; missing < 8; missing++) {
        draft.header.blob_size = 24 - missing; /* its count doesn't fit */
        check_refused(&draft, 0);
    }
    draft.header.blob_size = 24;
    set_word(&draft, 16, 1); /* its count fits, its string doesn't */
    check_refused(&draft, 0);
    op->argument[2] = 24;
    check_refused(&draft, 0);
}

/* Loading a vector writes to it: nothing else may be there. */
static void nothing_overlaps_a_vector(void) {
    struct draft draft = draft_new();
    struct mb_op *exec = draft_exec(&draft, STRINGS("a", "b"), STRINGS("c"), STRINGS("d"));
    uint64_t first = exec->argument[0], second = exec->argument[1], third = exec->argument[2];
    check_loads(&draft);
    const uint64_t orders[][3] = {
        {first, first, third},     {second, first, third},  {first, third, second},
        {first, first + 8, third}, {first, second, second}, {first, second + 8, third},
    };
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        memcpy(exec->argument, orders[i], sizeof orders[i]);
        check_refused(&draft, 0);
    }
    memcpy(exec->argument, (uint64_t[]){first, second, third}, sizeof orders[0]);
    const uint64_t inside[] = {0, 8, second, third, third + 15};
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
        struct mb_op *op = draft_op(&draft, MB_OP_chdir, inside[i]); /* a string in a vector */
        check_refused(&draft, 1);
        *op = (struct mb_op){.code = MB_OP_setgroups, .argument = {1ull << 32 | inside[i]}};
        check_refused(&draft, 1);
        draft.header.op_count--;
        set_word(&draft, first + 8, inside[i]); /* a vector's own string in a vector */
        check_refused(&draft, 0);
        set_word(&draft, first + 8, DRAFT_VECTORS);
        check_loads(&draft);
    }
}

/* An earlier operation's string in a later operation's vector is found too. */
static void a_string_before_the_vector_is_refused(void) {
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_chdir, U(0));
    draft_exec(&draft, STRINGS("a"), STRINGS("a"), STRINGS());
    check_refused(&draft, 0);
}

int main(void) {
    const struct test tests[] = {
        TEST(an_empty_plan_loads),
        TEST(arguments_point_into_the_buffer),
        TEST(every_operation_loads_with_plain_arguments),
        TEST(a_wrong_header_is_refused),
        TEST(sizes_must_add_up),
        TEST(unknown_operations_are_refused),
        TEST(what_is_reserved_must_be_zero),
        TEST(slots_have_an_end),
        TEST(strings_end_within_the_blob),
        TEST(bytes_lie_within_the_blob),
        TEST(vectors_lie_within_the_blob),
        TEST(a_vector_may_end_the_blob),
        TEST(nothing_overlaps_a_vector),
        TEST(a_string_before_the_vector_is_refused),
    };
    const size_t count = sizeof tests / sizeof *tests;
    for (size_t i = 0; i < count; i++) {
        running = tests[i].name;
        tests[i].run();
    }
    printf("test_plan: %zu passed\n", count);
    return 0;
}
