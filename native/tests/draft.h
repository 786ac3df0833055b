/* Plan buffers made by hand, right or wrong on purpose. */
#ifndef MB_TESTS_DRAFT_H
#define MB_TESTS_DRAFT_H

#include "plan.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define DRAFT_OPS 16
#define DRAFT_VECTORS 512 /* bytes in front of the blob, where the vectors go */
#define DRAFT_BLOB 16384

struct draft {
    struct mb_plan_header header;
    struct mb_op ops[DRAFT_OPS];
    _Alignas(8) unsigned char blob[DRAFT_BLOB];
    uint32_t vectors_size;
};

static inline struct draft draft_new(void) {
    return (struct draft){.header = {.magic = MB_PLAN_MAGIC, .blob_size = DRAFT_VECTORS}};
}

static inline uint64_t draft_bytes(struct draft *draft, const void *data, size_t size) {
    uint64_t offset = draft->header.blob_size;
    if (size) {
        memcpy(draft->blob + offset, data, size);
    }
    draft->header.blob_size += (uint32_t)size;
    return (uint64_t)size << 32 | offset;
}

static inline uint64_t draft_string(struct draft *draft, const char *string) {
    return (uint32_t)draft_bytes(draft, string, strlen(string) + 1);
}

/* A vector of strings, up to a NULL. */
static inline uint64_t draft_vector(struct draft *draft, const char *const *strings) {
    uint64_t offset = draft->vectors_size, words[32] = {0};
    for (; strings[words[0]]; words[0]++) {
        words[words[0] + 1] = draft_string(draft, strings[words[0]]);
    }
    size_t size = (words[0] + 1) * sizeof *words;
    memcpy(draft->blob + offset, words, size);
    draft->vectors_size += (uint32_t)size;
    return offset;
}

/* Add an operation; as many arguments as its signature has. */
static inline struct mb_op *draft_op(struct draft *draft, enum mb_op_code code, ...) {
    struct mb_op *op = &draft->ops[draft->header.op_count++];
    *op = (struct mb_op){.code = code};
    va_list arguments;
    va_start(arguments, code);
    for (size_t i = 0; i < strlen(mb_op_signatures[code].arguments); i++) {
        op->argument[i] = va_arg(arguments, uint64_t);
    }
    va_end(arguments);
    return op;
}

#define STRINGS(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

/* Vectors must come in order, and C evaluates arguments in any. */
static inline struct mb_op *draft_exec(struct draft *draft, const char *const *candidates, const char *const *argv,
                                       const char *const *environment) {
    uint64_t first = draft_vector(draft, candidates), second = draft_vector(draft, argv);
    return draft_op(draft, MB_OP_exec, first, second, draft_vector(draft, environment));
}

/* The buffer, of exactly its size, so that a sanitizer sees a read of one byte too many. */
static inline void *draft_buffer(const struct draft *draft, size_t *size) {
    size_t ops_size = draft->header.op_count * sizeof *draft->ops;
    *size = sizeof draft->header + ops_size + draft->header.blob_size;
    char *buffer = malloc(*size);
    if (!buffer) {
        abort();
    }
    memcpy(buffer, &draft->header, sizeof draft->header);
    memcpy(buffer + sizeof draft->header, draft->ops, ops_size);
    memcpy(buffer + sizeof draft->header + ops_size, draft->blob, draft->header.blob_size);
    return buffer;
}

#endif
