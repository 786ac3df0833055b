/* Operations that need no privilege, run as they are run for a container: by mb_spawn. */
#include "run.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/* ---- exec --------------------------------------------------------------------------------- */

/* Run /bin/sh by these candidates, with /no/such in front; the wait status, or minus the errno. */
static int candidates_error(const char *const *candidates, uint32_t *detail) {
    struct draft draft = draft_new();
    draft_exec(&draft, candidates, STRINGS("sh", "-c", "exit 7"), STRINGS());
    struct run run = start(&draft);
    shutdown(run.status_socket, SHUT_RDWR); /* else it waits until we have looked at its root */
    finish(&run);
    *detail = run.record->detail;
    int answer = run.record->state == MB_FAILED ? -run.record->error : WEXITSTATUS(run.wait_status);
    CHECK_EQUAL(run.record->state, answer < 0 ? MB_FAILED : MB_EXEC);
    forget(&run);
    return answer;
}

static void exec_takes_the_first_that_executes(void) {
    uint32_t detail;
    char plain[PATH_MAX], damaged[PATH_MAX];
    put_file("/plain", "#!/bin/sh\nexit 8\n", 0644);
    put_file("/damaged", "what", 0755);
    strcpy(plain, below("/plain"));
    strcpy(damaged, below("/damaged"));
    CHECK_EQUAL(candidates_error(STRINGS("/bin/sh"), &detail), 7);
    CHECK_EQUAL(candidates_error(STRINGS("/no/such", plain, "/bin/sh", damaged), &detail), 7);
    CHECK_EQUAL(candidates_error(STRINGS("/no/such", "/bin/sh/x"), &detail), -ENOENT);
    CHECK_EQUAL(candidates_error(STRINGS(), &detail), -ENOENT);
    /* One that is there is reported over those that aren't. */
    CHECK_EQUAL(candidates_error(STRINGS("/no/such", plain, "/no/either"), &detail), -EACCES);
    CHECK_EQUAL(detail, 1);
    /* And one that is damaged ends the search, as in a shell. */
    CHECK_EQUAL(candidates_error(STRINGS("/no/such", plain, damaged, "/bin/sh"), &detail), -ENOEXEC);
    CHECK_EQUAL(detail, 2);
}

static void exec_passes_arguments_and_environment(void) {
    struct draft draft = draft_new();
    CHECK_EQUAL(shell(&draft, "test \"$A\" = b && exit 9"), 9 << 8);
}

/* Whoever asks why gets the directory in which the command was looked for. */
static void a_failed_exec_sends_its_root(void) {
    struct draft draft = draft_new();
    draft_exec(&draft, STRINGS("/no/such"), STRINGS("such"), STRINGS());
    struct run run = start(&draft);
    struct mb_message message;
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec data = {&message, sizeof message};
    struct msghdr header = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK_EQUAL(recvmsg(run.status_socket, &header, MSG_CMSG_CLOEXEC), sizeof message);
    CHECK_EQUAL(message.tag, MB_TAG_ROOT);
    int fd;
    CHECK(header.msg_controllen >= CMSG_LEN(sizeof fd));
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&header)), sizeof fd);
    struct stat got, wanted;
    CHECK(!fstat(fd, &got) && !stat("/", &wanted) && got.st_ino == wanted.st_ino && got.st_dev == wanted.st_dev);
    close(fd);
    /* It is there, with its mounts, until we have looked. */
    CHECK_EQUAL(waitpid(run.pid, NULL, WNOHANG), 0);
    CHECK_EQUAL(run.record->state, MB_FAILED);
    shutdown(run.status_socket, SHUT_RDWR);
    finish(&run);
    CHECK_EQUAL(run.record->error, ENOENT);
    forget(&run);
}

/* ---- what a command inherits -------------------------------------------------------------- */

static void signals_are_as_at_first(void) {
    sigset_t mask, before;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigprocmask(SIG_BLOCK, &mask, &before);
    signal(SIGPIPE, SIG_IGN);
    struct draft draft = draft_new();
    int status = shell(&draft, "kill -PIPE $$; exit 1");
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
    draft = draft_new();
    status = shell(&draft, "kill -TERM $$; exit 1");
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    /* And the caller's own are as they were. */
    sigprocmask(SIG_SETMASK, &before, &mask);
    CHECK(sigismember(&mask, SIGTERM) && !sigismember(&mask, SIGINT));
    CHECK(signal(SIGPIPE, SIG_DFL) == SIG_IGN);
}

static void descriptors_stay_outside(void) {
    int leak = fcntl(STDERR_FILENO, F_DUPFD, 57), second = fcntl(STDERR_FILENO, F_DUPFD, 300);
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_open, draft_string(&draft, "/"), U(O_PATH), U(SCRATCH));
    draft_op(&draft, MB_OP_close_fds, U(0));
    char command[200];
    snprintf(command, sizeof command,
             "for fd in /proc/self/fd/*; do case ${fd##*/} in [012]) ;; *) exec 2>&-; "
             "test ! -e $fd || exit 1;; esac; done; test ! -e /proc/self/fd/%d",
             leak);
    CHECK_EQUAL(shell(&draft, command), 0);
    /* The interpreter closes them itself, so that a socket's closed end is seen as closed. */
    draft = draft_new();
    snprintf(command, sizeof command, "test ! -e /proc/self/fd/%d && test ! -e /proc/self/fd/%d", leak, second);
    CHECK_EQUAL(shell(&draft, command), 0);
    close(leak);
    close(second);
}

static void standard_streams_are_the_slots(void) {
    int in[2], out[2];
    CHECK(!pipe2(in, O_CLOEXEC) && !pipe2(out, O_CLOEXEC) && write(in[1], "hello\n", 6) == 6);
    close(in[1]);
    slots[IN] = in[0], slots[OUT] = out[1];
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_stdio, U(IN), U(OUT), U(OUT));
    draft_op(&draft, MB_OP_close_fds, U(0));
    CHECK_EQUAL(shell(&draft, "read line; echo $line; echo err >&2"), 0);
    close(in[0]);
    close(out[1]);
    char text[32] = {0};
    CHECK(read(out[0], text, sizeof text) == 10 && !strcmp(text, "hello\nerr\n"));
    close(out[0]);
    slots[IN] = slots[OUT] = -1;
}

/* Started with closed standard streams, what is opened on the way gets their numbers. */
static void closed_streams_are_no_trap(void) {
    pid_t pid = fork();
    if (!pid) {
        put_file("/in", "in\n", 0600);
        put_file("/out", "", 0600);
        close(0);
        close(1);
        close(2);
        /* The caller's end of a socket among them: the child must not keep it open. */
        struct draft draft = draft_new();
        draft_op(&draft, MB_OP_wait, U(CHANNEL), U(5));
        int pair[2];
        CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) && pair[0] == 0);
        slots[CHANNEL] = pair[1];
        struct run run = start(&draft);
        close(pair[0]);
        finish(&run);
        CHECK_EQUAL(run.record->error, ECONNRESET);
        close(pair[1]);
        forget(&run);
        slots[CHANNEL] = -1;

        draft = draft_new();
        draft_op(&draft, MB_OP_open, draft_string(&draft, below("/out")), U(O_RDWR), U(OUT));
        draft_op(&draft, MB_OP_open, draft_string(&draft, below("/in")), U(O_RDONLY), U(IN));
        draft_op(&draft, MB_OP_stdio, U(IN), U(OUT), U(OUT));
        draft_op(&draft, MB_OP_close_fds, U(0));
        int status = shell(&draft, "read line && echo $line && echo err >&2 && exit 3");
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 100);
    }
    int status;
    char text[8] = {0};
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_EQUAL(status, 3 << 8);
    int fd = open(below("/out"), O_RDONLY | O_CLOEXEC);
    CHECK(read(fd, text, sizeof text) == 7 && !strcmp(text, "in\nerr\n"));
    close(fd);
}

static void limits_and_masks_hold(void) {
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_setrlimit, U(RLIMIT_NOFILE), U(50), U(60));
    draft_op(&draft, MB_OP_umask, U(027));
    draft_op(&draft, MB_OP_no_new_privs);
    draft_op(&draft, MB_OP_setsid);
    CHECK_EQUAL(shell(&draft, "test $(ulimit -Sn) = 50 && test $(ulimit -Hn) = 60 && test $(umask) = 0027 && "
                              "grep -q '^NoNewPrivs:.1' /proc/self/status && "
                              "test $(cut -d' ' -f 6 /proc/$$/stat) = $$"),
                0);
    draft = draft_new();
    draft_op(&draft, MB_OP_setrlimit, U(RLIMIT_NOFILE), U(60), U(50));
    CHECK_EQUAL(error_of(&draft), EINVAL);
}

static void a_filter_loads_or_is_refused(void) {
    /* struct sock_filter: BPF_RET | BPF_K, SECCOMP_RET_ALLOW */
    const uint64_t allow = 0x06 | 0x7fff0000ull << 32;
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_no_new_privs);
    draft_op(&draft, MB_OP_seccomp, draft_bytes(&draft, &allow, sizeof allow), U(0));
    CHECK_EQUAL(shell(&draft, "grep -q '^Seccomp:.2' /proc/self/status"), 0);
    draft = draft_new();
    draft_op(&draft, MB_OP_no_new_privs);
    draft_op(&draft, MB_OP_seccomp, draft_bytes(&draft, "", 0), U(0));
    CHECK_EQUAL(error_of(&draft), EINVAL);
}

/* The kernel's length has 16 bits: 65537 instructions must not load as 1. */
static void a_filter_that_is_too_long_is_refused(void) {
    const size_t count = 65537, size = sizeof(struct mb_plan_header) + 2 * sizeof(struct mb_op) + count * 8;
    struct {
        struct mb_plan_header header;
        struct mb_op ops[2];
        uint64_t program[];
    } *buffer = calloc(1, size);
    CHECK(buffer != NULL);
    buffer->header = (struct mb_plan_header){MB_PLAN_MAGIC, 2, (uint32_t)(count * 8)};
    buffer->ops[0].code = MB_OP_no_new_privs;
    buffer->ops[1] = (struct mb_op){.code = MB_OP_seccomp, .argument = {count * 8 << 32}};
    for (size_t i = 0; i < count; i++) {
        buffer->program[i] = 0x06 | 0x7fff0000ull << 32;
    }
    struct mb_plan plan;
    uint32_t bad_op;
    CHECK_EQUAL(mb_plan_load(buffer, size, &plan, &bad_op), 0);
    struct mb_record *record = mb_record_new(2);
    int pidfd;
    pid_t pid = mb_spawn(&plan, 0, -1, slots, SLOTS, record, &pidfd);
    CHECK(pid > 0 && waitpid(pid, NULL, 0) == pid);
    CHECK_EQUAL(record->state, MB_FAILED);
    CHECK_EQUAL(record->error, EINVAL);
    close(pidfd);
    mb_record_free(record, 2);
    free(buffer);
}

/* ---- talking ------------------------------------------------------------------------------ */

static void wait_takes_the_right_tag_only(void) {
    const struct {
        const void *message;
        size_t size;
        int error;
    } cases[] = {
        {&(struct mb_message){.tag = 5}, sizeof(struct mb_message), 0},
        {&(struct mb_message){.tag = 6}, sizeof(struct mb_message), EPROTO},
        {"x", 1, ECONNRESET},
    };
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_wait, U(STATUS), U(5));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct run run = start(&draft);
        CHECK(send(run.status_socket, cases[i].message, cases[i].size, 0) == (ssize_t)cases[i].size);
        finish(&run);
        CHECK_EQUAL(run.record->error, cases[i].error);
        forget(&run);
    }
}

/* Even where another descriptor of the caller's end was open at the time of the clone. */
static void wait_sees_that_the_parent_is_gone(void) {
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_wait, U(STATUS), U(5));
    struct run run = start(&draft);
    shutdown(run.status_socket, SHUT_RDWR);
    finish(&run);
    CHECK_EQUAL(run.record->error, ECONNRESET);
    forget(&run);

    int pair[2];
    CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
    slots[CHANNEL] = pair[1];
    draft = draft_new();
    draft_op(&draft, MB_OP_wait, U(CHANNEL), U(5));
    run = start(&draft);
    close(pair[0]); /* the child's copy was closed by the interpreter */
    finish(&run);
    CHECK_EQUAL(run.record->error, ECONNRESET);
    forget(&run);
    draft = draft_new();
    draft_op(&draft, MB_OP_die_with_parent, U(CHANNEL));
    CHECK_EQUAL(error_of(&draft), ESRCH);
    close(pair[1]);
    slots[CHANNEL] = -1;
}

/* It tells of itself: another that did might be late, and what it tells next would be known before. */
static void a_sibling_goes_on(void) {
    int pair[2], on = 1;
    CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
    CHECK(!setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    slots[CHANNEL] = pair[1];
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_undumpable);
    draft_op(&draft, MB_OP_clone_sibling, U(CHANNEL), U(0));
    draft_exec(&draft, STRINGS("/bin/sh"), STRINGS("sh", "-c", "exit 7"), STRINGS("A=b"));
    struct run run = start(&draft);
    struct mb_message message;
    struct iovec data = {&message, sizeof message};
    char control[256];
    struct msghdr header = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK(recvmsg(pair[0], &header, MSG_CMSG_CLOEXEC) == sizeof message && message.tag == MB_TAG_SIBLING);
    int pidfd = -1;
    struct ucred sender = {0};
    for (struct cmsghdr *each = CMSG_FIRSTHDR(&header); each; each = CMSG_NXTHDR(&header, each)) {
        if (each->cmsg_type == SCM_RIGHTS) {
            memcpy(&pidfd, CMSG_DATA(each), sizeof pidfd);
        } else {
            memcpy(&sender, CMSG_DATA(each), sizeof sender);
        }
    }
    finish(&run);
    CHECK_EQUAL(run.wait_status, 0);
    siginfo_t ended = {0};
    CHECK(!waitid(P_PIDFD, (id_t)pidfd, &ended, WEXITED));
    CHECK_EQUAL(ended.si_status, 7);
    CHECK_EQUAL(ended.si_pid, sender.pid);
    close(pidfd);
    close(pair[0]);
    close(pair[1]);
    slots[CHANNEL] = -1;
    forget(&run);
}

static void descriptors_travel(void) {
    int pair[2];
    CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
    put_file("/file", "", 0600);
    /* One child opens and sends, another receives and writes. */
    slots[CHANNEL] = pair[0];
    struct draft sender = draft_new();
    draft_op(&sender, MB_OP_open, draft_string(&sender, below("/file")), U(O_WRONLY), U(SCRATCH));
    draft_op(&sender, MB_OP_send_fd, U(CHANNEL), U(SCRATCH), U(9));
    CHECK_EQUAL(error_of(&sender), 0);
    slots[CHANNEL] = pair[1];
    struct draft receiver = draft_new();
    draft_op(&receiver, MB_OP_recv_fd, U(CHANNEL), U(OUT));
    draft_op(&receiver, MB_OP_write_fd, U(OUT), draft_bytes(&receiver, "sent", 4));
    CHECK_EQUAL(error_of(&receiver), 0);
    struct stat status;
    CHECK(!stat(below("/file"), &status) && status.st_size == 4);
    /* A message without one is no descriptor. */
    CHECK(send(pair[0], &(struct mb_message){.tag = 9}, sizeof(struct mb_message), 0) > 0);
    CHECK_EQUAL(error_of(&receiver), EPROTO);
    close(pair[0]);
    CHECK_EQUAL(error_of(&receiver), ECONNRESET);
    CHECK_EQUAL(error_of(&sender), EPIPE); /* and no SIGPIPE */
    close(pair[1]);
    slots[CHANNEL] = -1;
}

/* ---- the record --------------------------------------------------------------------------- */

static void the_record_tells_how_far_it_came(void) {
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_setsid);
    draft_op(&draft, MB_OP_umask, U(0));
    draft_op(&draft, MB_OP_setsid); /* a session leader already: EPERM */
    draft_op(&draft, MB_OP_umask, U(0));
    struct run run = start(&draft);
    finish(&run);
    CHECK_EQUAL(run.record->state, MB_FAILED);
    CHECK_EQUAL(run.record->index, 2);
    CHECK_EQUAL(run.record->error, EPERM);
    const struct mb_time *time = run.record->time;
    CHECK(time[0].begin_ns && time[0].begin_ns <= time[0].end_ns && time[0].end_ns <= time[1].begin_ns);
    CHECK(time[2].end_ns && !time[3].begin_ns && !time[3].end_ns);
    forget(&run);
}

static void the_record_survives_a_kill(void) {
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_setsid);
    draft_op(&draft, MB_OP_wait, U(STATUS), U(5));
    struct run run = start(&draft);
    while (!*(volatile uint64_t *)&run.record->time[1].begin_ns) {
        usleep(100);
    }
    kill(run.pid, SIGKILL);
    finish(&run);
    CHECK(WIFSIGNALED(run.wait_status));
    CHECK_EQUAL(run.record->state, MB_RUNNING);
    CHECK_EQUAL(run.record->index, 1);
    CHECK(!run.record->time[1].end_ns);
    forget(&run);
}

/* As the mounter is run: when mb_spawn returns it has ended, and what it did to itself is not done to us. */
static void a_child_in_our_memory_changes_nothing_of_ours(void) {
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_umask, U(0));
    draft_op(&draft, MB_OP_chdir, draft_string(&draft, "/"));
    draft_op(&draft, MB_OP_mkdir, U(ROOT), draft_string(&draft, "/a/b"), U(0777));
    draft_op(&draft, MB_OP_mkdir, U(SCRATCH), draft_string(&draft, "/a/b"), U(0777));
    size_t size;
    void *buffer = draft_buffer(&draft, &size);
    struct mb_plan plan;
    uint32_t bad_op;
    CHECK_EQUAL(mb_plan_load(buffer, size, &plan, &bad_op), 0);
    struct mb_record *record = mb_record_new(plan.op_count);
    CHECK(!chdir(root));
    umask(0123);
    signal(SIGUSR1, SIG_IGN);
    int pidfd, status;
    /* AddressSanitizer knows nothing of the stack that the child ends on, and says so. */
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC), screen = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    dup2(null, STDERR_FILENO);
    pid_t pid = mb_spawn(&plan, CLONE_VM, -1, slots, SLOTS, record, &pidfd);
    dup2(screen, STDERR_FILENO);
    CHECK(pid > 0);
    CHECK_EQUAL(record->state, MB_FAILED);
    CHECK_EQUAL(record->index, 3);
    CHECK_EQUAL(record->error, EBADF);
    CHECK_EQUAL(waitpid(-1, &status, WNOHANG), -1); /* who waits for any child doesn't see it */
    CHECK_EQUAL(waitpid(pid, &status, __WALL), pid);
    CHECK_EQUAL(status, 1 << 8);
    check_directory("/a/b", 0777);
    CHECK_EQUAL(umask(0), 0123);
    CHECK(signal(SIGUSR1, SIG_DFL) == SIG_IGN);
    CHECK(!access("a/b", F_OK) && fcntl(slots[ROOT], F_GETFD) == FD_CLOEXEC && fcntl(pidfd, F_GETFD) == FD_CLOEXEC);
    close(pidfd);
    mb_record_free(record, 4);
    free(buffer);
}

static void empty_slots_are_bad_descriptors(void) {
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_write_fd, U(MB_SLOTS - 1), draft_bytes(&draft, "x", 1));
    CHECK_EQUAL(error_of(&draft), EBADF);
    draft = draft_new();
    draft_op(&draft, MB_OP_mkdir, U(SCRATCH), draft_string(&draft, "/x"), U(0755));
    CHECK_EQUAL(error_of(&draft), EBADF);
    struct mb_plan plan = {0};
    int pidfd;
    CHECK_EQUAL(mb_spawn(&plan, 0, -1, slots, MB_SLOTS + 1, NULL, &pidfd), -EINVAL);
}

/* ---- mounts -------------------------------------------------------------------------------- */

/* Where the mounts can't be read, nobody knows that the host's procfs isn't to be seen any more. */
static void a_root_is_not_moved_when_mounts_cannot_be_read(void) {
    CHECK(!mkdir(below("/proc"), 0700) && !mkdir(below("/proc/self"), 0700) && !mkdir(below("/proc/self/fd"), 0700));
    CHECK(!mkdir(below("/proc/self/mountinfo"), 0700)); /* can be opened, and read(2) says EISDIR */
    for (int fd = 0; fd < 256; fd++) {
        char name[32];
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        CHECK(!symlink("/nowhere", below(name)));
    }
    CHECK(!unshare(CLONE_NEWNS | (geteuid() ? CLONE_NEWUSER : 0)));
    CHECK(!mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) && !mount(below("/proc"), "/proc", NULL, MS_BIND, NULL));
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_move_root, U(ROOT));
    CHECK_EQUAL(error_of(&draft), EISDIR);
    CHECK(!umount2("/proc", MNT_DETACH)); /* sanitizers read there at the end */
}

/* ---- the tests ---------------------------------------------------------------------------- */

static const struct test tests[] = {
    TEST(exec_takes_the_first_that_executes),
    TEST(exec_passes_arguments_and_environment),
    TEST(a_failed_exec_sends_its_root),
    TEST(signals_are_as_at_first),
    TEST(descriptors_stay_outside),
    TEST(standard_streams_are_the_slots),
    TEST(closed_streams_are_no_trap),
    TEST(limits_and_masks_hold),
    TEST(a_filter_loads_or_is_refused),
    TEST(a_filter_that_is_too_long_is_refused),
    TEST(wait_takes_the_right_tag_only),
    TEST(wait_sees_that_the_parent_is_gone),
    TEST(a_sibling_goes_on),
    TEST(descriptors_travel),
    TEST(the_record_tells_how_far_it_came),
    TEST(the_record_survives_a_kill),
    TEST(a_child_in_our_memory_changes_nothing_of_ours),
    TEST(empty_slots_are_bad_descriptors),
    TEST(a_root_is_not_moved_when_mounts_cannot_be_read),
};
static const size_t test_count = sizeof tests / sizeof *tests;

int main(void) { return run_tests("test_child", tests, test_count); }
