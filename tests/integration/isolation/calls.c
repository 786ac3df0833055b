/* Makes system calls as its arguments say, ABI:NUMBER:ARGUMENT,..., each in a child of its own, and prints for each the
 * errno's name, or "done", or "dead" where the kernel has no such ABI. All numbers are hexadecimal. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static long call_64(long number, const unsigned long *a) {
    register unsigned long r10 __asm__("r10") = a[3], r8 __asm__("r8") = a[4], r9 __asm__("r9") = a[5];
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* The i386 entry is open to a program of 64 bits, too: that is why a filter of one architecture is none. */
static long call_32(long number, const unsigned long *a) {
    int result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(a[0]), "c"(a[1]), "d"(a[2]), "S"(a[3]), "D"(a[4])
                     : "r8", "r9", "r10", "r11", "memory");
    return result;
}

/* socketcall(2) takes its arguments from memory, and of i386 from where a pointer of 32 bits leads. */
static long socketcall(const unsigned long *a) {
    unsigned *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    for (int i = 0; i < 3; i++)
        memory[i] = (unsigned)a[i + 1];
    const unsigned long words[6] = {a[0], (unsigned long)memory};
    return call_32(102, words);
}

static int run(char *line) {
    char *abi = strtok(line, ":"), *number_text = strtok(NULL, ":"), *rest = strtok(NULL, ":");
    unsigned long a[6] = {0};
    int i = 0;
    for (char *word = rest ? strtok(rest, ",") : NULL; word && i < 6; word = strtok(NULL, ","))
        a[i++] = strtoul(word, NULL, 16);
    long number = strtol(number_text, NULL, 16);
    long result = !strcmp(abi, "i386")         ? call_32(number, a)
                  : !strcmp(abi, "x32")        ? call_64(number | 0x40000000, a)
                  : !strcmp(abi, "socketcall") ? socketcall(a)
                                               : call_64(number, a);
    return result < 0 && result > -4096 ? (int)-result : 0;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(run(argv[i]));
        int status = 0;
        waitpid(child, &status, 0);
        int error = WEXITSTATUS(status);
        puts(!WIFEXITED(status) ? "dead" : error ? strerrorname_np(error) : "done");
    }
    return 0;
}
