#include "parent/begin.h"
#include "syscalls.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/time.h>

int mb_begin(unsigned first) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    /* The raw call, because the C library's sigaction doesn't touch its own 32 and 33, which some ancestor may have
     * ignored. */
    static const unsigned char default_action[64]; /* at least the kernel's struct sigaction; SIG_DFL is 0 */
    for (int number = 1; number < NSIG; number++) {
        syscall(SYS_rt_sigaction, number, default_action, NULL, sizeof(uint64_t));
    }
    static const struct itimerval never;
    setitimer(ITIMER_REAL, &never, NULL);
    setitimer(ITIMER_VIRTUAL, &never, NULL);
    setitimer(ITIMER_PROF, &never, NULL);
    umask(022);
    mb_close_range(first, UINT_MAX, 0);
    int fd;
    do { /* not close-on-exec, since programs that we execute need them too */
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd < 3);
    if (fd < 0) {
        return -1;
    }
    close(fd);
    return chdir("/");
}
