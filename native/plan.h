/* The Plan: a flat list of operations in one buffer, made in Python and run between clone and exec.
 *
 * Layout of a buffer (host byte order: it never leaves the machine):
 *
 *     struct mb_plan_header
 *     struct mb_op[header.op_count]
 *     blob: strings, byte ranges, string vectors; arguments refer to it by offset
 *
 * mb_plan_load checks every reference against the operations' signatures and then replaces offsets by pointers, so
 * that the child only follows pointers. A buffer that loads can't make the interpreter read or write outside it,
 * whatever it contains.
 *
 * Argument kinds, one letter each in a signature:
 *
 *     u  a number
 *     s  a string: offset of a NUL-terminated string in the blob
 *     z  the same, or MB_NONE for none
 *     b  a byte range: offset in the low 32 bits, length in the high 32 bits
 *     v  a string vector: offset (8-aligned) of a count and that many string offsets, all u64
 *     f  a descriptor slot that is read
 *     r  a slot with a root directory, perhaps with MB_NO_LINKS: no symlink is followed below it; or MB_HOST:
 *        paths are resolved in the caller's own root
 *     o  a descriptor slot that is filled */
#ifndef MB_PLAN_H
#define MB_PLAN_H

#include <stddef.h>
#include <stdint.h>

#define MB_PLAN_MAGIC 0x314e4c50584f424dULL /* "MBOXPLN1" */
#define MB_OP_ARGUMENTS 7
#define MB_OPS_MAX 4096
#define MB_SLOTS 1280
#define MB_NONE UINT64_MAX
#define MB_HOST UINT64_MAX
#define MB_NO_LINKS (UINT64_C(1) << 32)

struct mb_plan_header {
    uint64_t magic;
    uint32_t op_count;
    uint32_t blob_size;
};

struct mb_op {
    uint32_t code;
    uint32_t reserved; /* must be 0 */
    uint64_t argument[MB_OP_ARGUMENTS];
};

/* Resolves a loaded 'b' argument. Offset and length fill its one word, so there is no room for a pointer. */
struct mb_bytes {
    const unsigned char *data;
    size_t size;
};

struct mb_op_signature {
    const char *name;
    const char *arguments;
};

enum mb_op_code {
#define MB_OP(name, arguments) MB_OP_##name,
#include "operations.def"
#undef MB_OP
    MB_OP_COUNT
};

/* Names and signatures of all operations by code. Only this table gives operations their numbers; Python reads it.
 */
extern const struct mb_op_signature mb_op_signatures[];
extern const unsigned mb_op_count;

/* The operations at a container's end, which the supervisor executes (parent/end.c). They have numbers of their own.
 */
enum mb_end_code {
#define MB_END(name, arguments) MB_END_##name,
#include "end.def"
#undef MB_END
    MB_END_COUNT
};
extern const struct mb_op_signature mb_end_signatures[];
extern const unsigned mb_end_count;

/* A checked plan. It points into the buffer that it was loaded from, which must outlive it. */
struct mb_plan {
    struct mb_op *ops;
    uint32_t op_count;
    const char *blob;
};

/* Check `buffer` and make it ready to run, in place. Returns 0, or -EINVAL with the index of the refused operation
 * in `bad_op` (op_count for the header). A buffer can be loaded only once. */
int mb_plan_load(void *buffer, size_t size, struct mb_plan *plan, uint32_t *bad_op);

/* The same for the operations of a container's end. */
int mb_end_load(void *buffer, size_t size, struct mb_plan *plan, uint32_t *bad_op);

static inline struct mb_bytes mb_plan_bytes(const struct mb_plan *plan, uint64_t argument) {
    return (struct mb_bytes){(const unsigned char *)plan->blob + (uint32_t)argument, argument >> 32};
}

#endif
