/* minibox-init: process 1 of a container run with --init.
 *
 * Runs the command after "--", passes every signal on to it, reaps orphans below it, and ends as the command ended.
 * Without a command it only reaps. It is static, to run in images with any C library or none.
 *
 * On the host it has other names: minibox-launcher is described in launcher.h, minibox-supervisor and minibox-delay
 * in supervisor.h, minibox-member in dns/member.c. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dns/server.h"
#include "parent/begin.h"
#include "parent/launcher.h"
#include "parent/supervisor.h"
#include "parent/supervisor_exit.h"

/* Signals about this process itself. They must not be passed on. */
static const int not_passed_on[] = {SIGCHLD, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGTTIN, SIGTTOU};

/* Not an errno: the file exists, and execve(2) answers ENOENT because its interpreter is missing. */
enum { NO_INTERPRETER = -1 };

/* Execute the command, looking in PATH if it has no slash; return what failed. Like execvp(3), but without its
 * second try with /bin/sh, since a script without "#!" fails without --init too. */
static int search_and_execute(char **argv) {
    const char *path = strchr(argv[0], '/') ? "" : getenv("PATH");
    int error = ENOENT;
    for (const char *entry = path ? path : "/bin:/usr/bin", *end; error == ENOENT || error == EACCES; entry = end + 1) {
        end = strchrnul(entry, ':');
        char candidate[PATH_MAX];
        const char *slash = end > entry ? "/" : "";
        if (snprintf(candidate, sizeof candidate, "%.*s%s%s", (int)(end - entry), entry, slash, argv[0]) >= PATH_MAX) {
            errno = ENOENT;
            *candidate = '\0';
        } else {
            execv(candidate, argv);
        }
        if (errno == ENOENT && access(candidate, F_OK) == 0) {
            error = NO_INTERPRETER;
        } else if (errno != ENOENT && errno != ENOTDIR) {
            error = errno;
        }
        if (!*end) {
            break;
        }
    }
    return error;
}

/* Runs in the child: never returns. */
static _Noreturn void execute(char **argv, const sigset_t *mask) {
    /* A process group of its own, in the foreground, so that Ctrl-C goes to the command and not to init. Both calls
     * fail without a terminal, which is fine. */
    setpgid(0, 0);
    signal(SIGTTOU, SIG_IGN);
    tcsetpgrp(STDIN_FILENO, getpid());
    signal(SIGTTOU, SIG_DFL);
    sigprocmask(SIG_SETMASK, mask, NULL);
    int error = search_and_execute(argv);
    const char *what = error == NO_INTERPRETER ? "its interpreter or loader is not in the image" : strerror(error);
    dprintf(STDERR_FILENO, "minibox: exec %s: %s\n", argv[0], what);
    _exit(error == ENOENT ? 127 : 126);
}

/* Process 1 of a container that others enter: reap orphans until told to end. */
static int idle(void) {
    sigset_t waited;
    sigemptyset(&waited);
    sigaddset(&waited, SIGCHLD);
    sigaddset(&waited, SIGINT);
    sigaddset(&waited, SIGTERM);
    sigprocmask(SIG_SETMASK, &waited, NULL);
    for (;;) {
        int number = sigwaitinfo(&waited, NULL);
        if (number == SIGINT || number == SIGTERM) {
            return 0;
        }
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
    }
}

/* 0 is the terminal of a command that its user has left. Read it, since a full terminal would stop the command, and
 * hold it, since a terminal without a reader would end. */
static int drain(void) {
    static char data[4096];
    if (mb_begin(1)) {
        return 1;
    }
    while (read(0, data, sizeof data) > 0) {
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc && !strncmp(argv[0], "minibox-", 8)) {
        prctl(PR_SET_NAME, argv[0]); /* if executed by a descriptor, its name is the descriptor's number */
    }
    if (argc && !strcmp(argv[0], "minibox-drain")) {
        return drain();
    }
    if (argc && !strcmp(argv[0], "minibox-launcher")) {
        return mb_launcher();
    }
    if (argc && !strcmp(argv[0], "minibox-supervisor")) {
        return mb_supervisor();
    }
    if (argc && !strcmp(argv[0], "minibox-log")) {
        return mb_output_log(argc, argv);
    }
    if (argc && !strcmp(argv[0], "minibox-member")) {
        return mb_dns_member(argc, argv);
    }
    if (argc && !strcmp(argv[0], "minibox-delay")) {
        return mb_delay(argc, argv);
    }
    int first = argc > 1 && !strcmp(argv[1], "--") ? 2 : 1;
    if (first == 2 && argc == 2) {
        return idle();
    }
    if (first >= argc) {
        dprintf(STDERR_FILENO, "usage: minibox-init [--] COMMAND [ARGUMENT...]\n");
        return 125;
    }
    sigset_t waited, before;
    sigfillset(&waited);
    for (size_t i = 0; i < sizeof not_passed_on / sizeof *not_passed_on; i++) {
        if (not_passed_on[i] != SIGCHLD) {
            sigdelset(&waited, not_passed_on[i]);
        }
    }
    sigprocmask(SIG_SETMASK, &waited, &before);
    pid_t command = fork();
    if (command < 0) {
        dprintf(STDERR_FILENO, "minibox: fork: %s\n", strerror(errno));
        return 125;
    }
    if (command == 0) {
        execute(argv + first, &before);
    }
    for (;;) {
        int number = sigwaitinfo(&waited, NULL);
        if (number > 0 && number != SIGCHLD) {
            kill(command, number);
            continue;
        }
        int status;
        pid_t ended;
        while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
            if (ended == command) {
                /* Process 1 can't die of a signal that it sends itself. It exits with 128+N, which the command
                 * itself might do too, so its parent reads the zombie's name as well (mb_exit_relayed). */
                if (WIFSIGNALED(status)) {
                    char name[16];
                    snprintf(name, sizeof name, MB_RELAYED "%d", WTERMSIG(status));
                    prctl(PR_SET_NAME, name);
                }
                return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
            }
        }
    }
}
