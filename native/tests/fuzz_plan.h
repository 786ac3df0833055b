#ifndef MB_TESTS_FUZZ_PLAN_H
#define MB_TESTS_FUZZ_PLAN_H

#include <stddef.h>
#include <stdint.h>

/* libFuzzer's entry. Built with MB_FUZZ_TELL it says whether the bytes were a plan. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
