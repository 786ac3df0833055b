/* minibox-delay, which waits before a restart, and code that it shares with the supervisor. */
#include "parent/begin.h"
#include "parent/supervisor.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

void mb_go_on_as(char **command) {
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_SETMASK, &term, NULL);
    execv(command[0], command);
}

int mb_delay(int argc, char **argv) {
    if (argc < 3) {
        return 125;
    }
    if (mb_begin(4)) { /* 3 is the claim */
        return 125;
    }
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    long delay_ms = strtol(argv[1], NULL, 10);
    sigtimedwait(&term, NULL, &(struct timespec){delay_ms / 1000, delay_ms % 1000 * 1000000});
    mb_go_on_as(argv + 2);
    return 126;
}
