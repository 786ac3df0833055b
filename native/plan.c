#include "plan.h"

#include <errno.h>
#include <string.h>

const struct mb_op_signature mb_op_signatures[] = {
#define MB_OP(name, arguments) {#name, arguments},
#include "operations.def"
#undef MB_OP
};
const unsigned mb_op_count = MB_OP_COUNT;

const struct mb_op_signature mb_end_signatures[] = {
#define MB_END(name, arguments) {#name, arguments},
#include "end.def"
#undef MB_END
};
const unsigned mb_end_count = MB_END_COUNT;

struct loader {
    const struct mb_op_signature *signatures;
    uint32_t signature_count;
    char *blob;
    uint32_t size;
};

/* The string at `offset`; NULL if it doesn't end within the blob. */
static char *string_at(const struct loader *loader, uint64_t offset) {
    if (offset >= loader->size || !memchr(loader->blob + offset, '\0', loader->size - offset)) {
        return NULL;
    }
    return loader->blob + offset;
}

/* A vector is a count and that many string offsets. When loaded, it becomes pointers to those strings and a NULL,
 * as execve needs it, moved one word down over the count. Vectors must not overlap with each other or with strings,
 * because writing one would change the other after it was checked. So vectors must come in order, before all
 * strings; `floor` is where the next one may begin. */
static uint64_t load_vector(const struct loader *loader, uint64_t offset, uint64_t *floor) {
    if (offset % sizeof(uint64_t) || offset < *floor || offset >= loader->size ||
        loader->size - offset < sizeof(uint64_t)) {
        return 0;
    }
    uint64_t *words = (uint64_t *)(void *)(loader->blob + offset);
    uint64_t count = words[0];
    if (count > (loader->size - offset) / sizeof(uint64_t) - 1) {
        return 0;
    }
    *floor = offset + (count + 1) * sizeof(uint64_t);
    return (uint64_t)(uintptr_t)words;
}

static int point_vector(const struct loader *loader, uint64_t *words, uint64_t floor) {
    uint64_t count = words[0];
    for (uint64_t i = 0; i < count; i++) {
        char *string = words[i + 1] < floor ? NULL : string_at(loader, words[i + 1]);
        if (!string) {
            return -EINVAL;
        }
        words[i] = (uint64_t)(uintptr_t)string;
    }
    words[count] = 0;
    return 0;
}

/* First pass: find the vectors. */
static int find_vectors(const struct loader *loader, struct mb_op *op, uint64_t *floor) {
    if (op->code >= loader->signature_count || op->reserved) {
        return -EINVAL;
    }
    const char *kinds = loader->signatures[op->code].arguments;
    for (size_t i = 0; kinds[i]; i++) {
        if (kinds[i] == 'v') {
            op->argument[i] = load_vector(loader, op->argument[i], floor);
            if (!op->argument[i]) {
                return -EINVAL;
            }
        }
    }
    return 0;
}

static int load_argument(const struct loader *loader, char kind, uint64_t *argument, uint64_t floor) {
    switch (kind) {
    case 'u':
        return 0;
    case 'z':
        if (*argument == MB_NONE) {
            *argument = 0;
            return 0;
        }
        /* fall through */
    case 's': {
        char *string = *argument < floor ? NULL : string_at(loader, *argument);
        *argument = (uint64_t)(uintptr_t)string;
        return string ? 0 : -EINVAL;
    }
    case 'b': {
        uint64_t offset = (uint32_t)*argument, size = *argument >> 32;
        return offset < floor || offset > loader->size || size > loader->size - offset ? -EINVAL : 0;
    }
    case 'v':
        return point_vector(loader, (uint64_t *)(uintptr_t)*argument, floor);
    case 'r':
        return *argument == MB_HOST || (*argument & ~MB_NO_LINKS) < MB_SLOTS ? 0 : -EINVAL;
    case 'f':
    case 'o':
        return *argument < MB_SLOTS ? 0 : -EINVAL;
    default:
        return -EINVAL;
    }
}

static int load_op(const struct loader *loader, struct mb_op *op, uint64_t floor) {
    const char *kinds = loader->signatures[op->code].arguments;
    size_t i = 0;
    for (; kinds[i]; i++) {
        if (load_argument(loader, kinds[i], &op->argument[i], floor)) {
            return -EINVAL;
        }
    }
    for (; i < MB_OP_ARGUMENTS; i++) {
        if (op->argument[i]) {
            return -EINVAL;
        }
    }
    return 0;
}

static int load(struct loader loader, void *buffer, size_t size, struct mb_plan *plan, uint32_t *bad_op) {
    struct mb_plan_header header;
    *bad_op = 0;
    if (size < sizeof header || (uintptr_t)buffer % sizeof(uint64_t)) {
        return -EINVAL;
    }
    memcpy(&header, buffer, sizeof header);
    *bad_op = header.op_count;
    if (header.magic != MB_PLAN_MAGIC || header.op_count > MB_OPS_MAX ||
        size - sizeof header != (size_t)header.op_count * sizeof(struct mb_op) + header.blob_size) {
        return -EINVAL;
    }
    plan->ops = (struct mb_op *)(void *)((char *)buffer + sizeof header);
    plan->op_count = header.op_count;
    plan->blob = (char *)(plan->ops + header.op_count);

    loader.blob = (char *)(plan->ops + header.op_count);
    loader.size = header.blob_size;
    uint64_t floor = 0;
    for (uint32_t i = 0; i < header.op_count; i++) {
        if (find_vectors(&loader, &plan->ops[i], &floor)) {
            *bad_op = i;
            return -EINVAL;
        }
    }
    for (uint32_t i = 0; i < header.op_count; i++) {
        if (load_op(&loader, &plan->ops[i], floor)) {
            *bad_op = i;
            return -EINVAL;
        }
    }
    return 0;
}

int mb_plan_load(void *buffer, size_t size, struct mb_plan *plan, uint32_t *bad_op) {
    struct loader loader = {.signatures = mb_op_signatures, .signature_count = MB_OP_COUNT};
    return load(loader, buffer, size, plan, bad_op);
}

int mb_end_load(void *buffer, size_t size, struct mb_plan *plan, uint32_t *bad_op) {
    struct loader loader = {.signatures = mb_end_signatures, .signature_count = MB_END_COUNT};
    return load(loader, buffer, size, plan, bad_op);
}
