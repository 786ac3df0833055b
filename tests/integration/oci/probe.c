/* Static and without a C library: it says that it runs, by two system calls that are its own. */
#include <asm/unistd.h>

static long call(long number, long first, long second, long third) {
    long answer;
    __asm__ volatile("syscall"
                     : "=a"(answer)
                     : "a"(number), "D"(first), "S"(second), "d"(third)
                     : "rcx", "r11", "memory");
    return answer;
}

void _start(void) {
    call(__NR_write, 1, (long)"started\n", 8);
    for (;;) { /* whichever of the two is allowed */
        call(__NR_exit_group, 42, 0, 0);
        call(__NR_exit, 42, 0, 0);
    }
}
