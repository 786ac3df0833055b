/* Any bytes either are refused by mb_plan_load or make a plan whose every argument can be followed.
 * The target of libFuzzer, and of the deterministic driver in mutate_plan.c. */
#include "fuzz_plan.h"

#include "plan.h"

#include <stdlib.h>
#include <string.h>

/* Where what was read goes, so that no read is left out. */
static volatile uint64_t sum;

static void read_string(const char *string) { sum += strlen(string); }

static void follow(const struct mb_plan *plan, char kind, uint64_t argument) {
    switch (kind) {
    case 'z':
        if (!argument) {
            return;
        }
        /* fall through */
    case 's':
        read_string((const char *)(uintptr_t)argument);
        return;
    case 'b': {
        struct mb_bytes bytes = mb_plan_bytes(plan, argument);
        for (size_t i = 0; i < bytes.size; i++) {
            sum += bytes.data[i];
        }
        return;
    }
    case 'v':
        for (char **string = (char **)(uintptr_t)argument; *string; string++) {
            read_string(*string);
        }
        return;
    case 'r':
        if (argument == MB_HOST) {
            return;
        }
        argument &= ~MB_NO_LINKS;
        /* fall through */
    case 'f':
    case 'o':
        if (argument >= MB_SLOTS) {
            abort();
        }
        return;
    default:
        return;
    }
}

typedef int load_plan(void *buffer, size_t size, struct mb_plan *plan, uint32_t *bad_op);

static int load_and_follow(load_plan *load, const struct mb_op_signature *signatures, const uint8_t *data,
                           size_t size) {
    /* A copy of exactly the size: loading writes, and a sanitizer guards what is beside. */
    void *buffer = malloc(size ? size : 1);
    if (!buffer) {
        abort();
    }
    memcpy(buffer, data, size);
    struct mb_plan plan;
    uint32_t bad_op;
    int loaded = !load(buffer, size, &plan, &bad_op);
    if (loaded) {
        for (uint32_t i = 0; i < plan.op_count; i++) {
            const char *kinds = signatures[plan.ops[i].code].arguments;
            for (size_t k = 0; kinds[k]; k++) {
                follow(&plan, kinds[k], plan.ops[i].argument[k]);
            }
        }
    }
    free(buffer);
    return loaded;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int loaded = load_and_follow(mb_plan_load, mb_op_signatures, data, size);
    load_and_follow(mb_end_load, mb_end_signatures, data, size);
#ifdef MB_FUZZ_TELL
    return loaded;
#else
    return 0; /* libFuzzer has no other answer */
#endif
}
