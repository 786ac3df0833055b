/* What a start by two commands, and a Spec of anybody's, need of the interpreter. */
#include "run.h"

#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

/* ---- the gate ----------------------------------------------------------------------------- */

/* A child that waits at its gate; `fifo` is open for writing only. */
static struct run at_the_gate(struct draft *draft, int *fifo, int *report) {
    CHECK(!mkfifo(below("/gate"), 0600));
    slots[IN] = open(below("/gate"), O_RDWR | O_CLOEXEC);
    slots[OUT] = open(below("/report"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct run run = start(draft);
    struct mb_message message;
    int none;
    CHECK_EQUAL(mb_child_receive(run.status_socket, &message, &none), 0);
    CHECK(message.tag == 7 && none == -1);
    close(slots[IN]);
    *report = slots[OUT];
    *fifo = open(below("/gate"), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    CHECK(*fifo >= 0);
    return run;
}

static struct draft gated(void) {
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_tell, U(STATUS), U(7));
    draft_op(&draft, MB_OP_gate, U(IN), U(OUT));
    return draft;
}

static void a_gate_lets_one_pass(void) {
    struct draft draft = gated();
    draft_exec(&draft, STRINGS("/bin/sh"), STRINGS("sh", "-c", "exit 7"), STRINGS("A=b"));
    int fifo, report;
    struct run run = at_the_gate(&draft, &fifo, &report);
    CHECK_EQUAL(waitpid(run.pid, NULL, WNOHANG), 0);
    CHECK_EQUAL(write(fifo, "0", 1), 1);
    finish(&run);
    CHECK_EQUAL(run.wait_status, 7 << 8);
    signal(SIGPIPE, SIG_IGN);
    CHECK(write(fifo, "0", 1) < 0 && errno == EPIPE); /* its exec has closed the other end */
    char data[16];
    CHECK_EQUAL(pread(report, data, sizeof data, 0), 0);
    forget(&run);
}

static void what_fails_behind_a_gate_is_reported(void) {
    struct draft draft = gated();
    draft_op(&draft, MB_OP_mkdir, U(SCRATCH), draft_string(&draft, "/x"), U(0755));
    int fifo, report;
    struct run run = at_the_gate(&draft, &fifo, &report);
    CHECK_EQUAL(write(fifo, "0", 1), 1);
    finish(&run);
    struct mb_record record;
    CHECK_EQUAL(pread(report, &record, sizeof record, 0), sizeof record);
    CHECK(record.state == MB_FAILED && record.index == 2 && record.error == EBADF);
    forget(&run);
}

static void who_waits_at_a_gate_can_be_ended(void) {
    struct draft draft = gated();
    int fifo, report;
    struct run run = at_the_gate(&draft, &fifo, &report);
    kill(run.pid, SIGTERM);
    finish(&run);
    CHECK(WIFSIGNALED(run.wait_status) && WTERMSIG(run.wait_status) == SIGTERM);
    forget(&run);
}

/* ---- hooks -------------------------------------------------------------------------------- */

static struct run hooked_in(uint64_t directory, const char *script, uint64_t timeout_s) {
    struct draft draft = draft_new();
    uint64_t argv = draft_vector(&draft, STRINGS("sh", "-c", script)), env = draft_vector(&draft, STRINGS("A=b"));
    draft_op(&draft, MB_OP_hook, U(IN), draft_string(&draft, "/bin/sh"), argv, env, timeout_s, directory);
    struct run run = start(&draft);
    finish(&run);
    return run;
}

static struct run hooked(const char *script, uint64_t timeout_s) { return hooked_in(MB_HOST, script, timeout_s); }

static void a_hook_reads_the_state_and_is_waited_for(void) {
    put_file("/state", "told\n", 0600);
    slots[IN] = open(below("/state"), O_RDONLY | O_CLOEXEC);
    char script[2 * PATH_MAX + 64];
    snprintf(script, sizeof script, "read line && echo $line $A > %s", below("/out"));
    for (int i = 0; i < 2; i++) { /* a second one reads it from its beginning, too */
        struct run run = hooked(script, 0);
        CHECK_EQUAL(run.record->state, MB_DONE);
        forget(&run);
        char text[16] = {0};
        int fd = open(below("/out"), O_RDONLY | O_CLOEXEC);
        CHECK(read(fd, text, sizeof text) == 7 && !strcmp(text, "told b\n"));
        close(fd);
    }
}

static void a_hook_runs_in_the_root(void) {
    slots[IN] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    slots[SCRATCH] = open(below(""), O_PATH | O_DIRECTORY | O_CLOEXEC);
    char script[2 * PATH_MAX + 64];
    snprintf(script, sizeof script, "test $(pwd) -ef %s && test $(umask) = 0022", below(""));
    struct run run = hooked_in(SCRATCH, script, 60);
    CHECK_EQUAL(run.record->state, MB_DONE);
    forget(&run);
    run = hooked("test $(umask) = 0000", 60); /* else as the steps before it have left it */
    CHECK_EQUAL(run.record->state, MB_DONE);
    forget(&run);
    close(slots[SCRATCH]);
    slots[SCRATCH] = -1;
}

static void a_hook_fails_or_takes_too_long(void) {
    slots[IN] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct run run = hooked("exit 3", 60);
    CHECK(run.record->error == ECANCELED && run.record->detail == 3 << 8);
    forget(&run);
    run = hooked("kill -9 $$", 60);
    CHECK(run.record->error == ECANCELED && run.record->detail == SIGKILL);
    forget(&run);
    run = hooked("exec sleep 1000", 1);
    CHECK_EQUAL(run.record->error, ETIMEDOUT);
    forget(&run);
}

/* ---- namespaces and descriptors ----------------------------------------------------------- */

/* EINVAL would say the same of any namespace that can't be joined. */
static void a_user_namespace_that_it_is_in_is_no_error(void) {
    slots[SCRATCH] = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_setns, U(SCRATCH), U(CLONE_NEWUSER));
    CHECK_EQUAL(error_of(&draft), 0);
    slots[SCRATCH] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK_EQUAL(error_of(&draft), EINVAL);
}

static void descriptors_are_kept(void) {
    int kept = open("/dev/null", O_RDONLY);
    CHECK(dup2(kept, 3) == 3 && dup2(kept, 4) == 4);
    slots[IN] = 3, slots[OUT] = 4;
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_close_fds, U(1));
    CHECK_EQUAL(shell(&draft, "test -e /proc/self/fd/3 && test ! /proc/self/fd/4 -ef /dev/null"), 0);
}

/* ---- the tests ---------------------------------------------------------------------------- */

static const struct test tests[] = {
    TEST(a_gate_lets_one_pass),
    TEST(what_fails_behind_a_gate_is_reported),
    TEST(who_waits_at_a_gate_can_be_ended),
    TEST(a_hook_reads_the_state_and_is_waited_for),
    TEST(a_hook_runs_in_the_root),
    TEST(a_hook_fails_or_takes_too_long),
    TEST(a_user_namespace_that_it_is_in_is_no_error),
    TEST(descriptors_are_kept),
};

int main(void) { return run_tests("test_start", tests, sizeof tests / sizeof *tests); }
