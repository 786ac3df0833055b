#ifndef MB_TESTS_FUZZ_DNS_H
#define MB_TESTS_FUZZ_DNS_H

#include <stddef.h>
#include <stdint.h>

/* libFuzzer's entry. The first byte says what the rest is: a query, an answer of another server, or a table. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_QUERY, FUZZ_ANSWER, FUZZ_TABLE, FUZZ_KINDS };

/* How many inputs got an answer with at least one record. */
extern unsigned fuzz_dns_answered;

#endif
