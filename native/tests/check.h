/* The least of a test framework: a test is a function, a failed CHECK ends the program. */
#ifndef MB_TESTS_CHECK_H
#define MB_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) check_that((condition), #condition, __FILE__, __LINE__)
#define CHECK_EQUAL(got, wanted) check_equal((long long)(got), (long long)(wanted), #got, __FILE__, __LINE__)

static const char *running = "";

static inline void check_that(int holds, const char *text, const char *file, int line) {
    if (!holds) {
        fprintf(stderr, "%s:%d: %s: not so: %s\n", file, line, running, text);
        exit(1);
    }
}

static inline void check_equal(long long got, long long wanted, const char *text, const char *file, int line) {
    if (got != wanted) {
        fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld\n", file, line, running, text, got, wanted);
        exit(1);
    }
}

struct test {
    const char *name;
    void (*run)(void);
};

#define TEST(function)                                                                                                 \
    { #function, function }

#endif
