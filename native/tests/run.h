/* Operations run as they are run for a container: by mb_spawn, each test in a directory and a process of its own. */
#ifndef MB_TESTS_RUN_H
#define MB_TESTS_RUN_H

#include "check.h"
#include "draft.h"

#include "child/operations.h"
#include "parent/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define U(number) ((uint64_t)(number))

enum { STATUS = MB_SLOT_STATUS, CHANNEL, IN, OUT, ERR, ROOT, SCRATCH, SLOTS };

/* A child under way, or ended. */
struct run {
    size_t op_count;
    void *buffer;
    struct mb_record *record;
    pid_t pid;
    int pidfd, status_socket;
    int wait_status;
};

static char root[PATH_MAX]; /* an empty directory for this test */
static int slots[SLOTS];

/* An operation's path below the root: there is one test process at a time. */
static inline const char *below(const char *path) {
    static char whole[2 * PATH_MAX];
    snprintf(whole, sizeof whole, "%s%s", root, path);
    return whole;
}

static inline struct run start(const struct draft *draft) {
    struct run run = {.op_count = draft->header.op_count};
    size_t size;
    struct mb_plan plan;
    uint32_t bad_op;
    run.buffer = draft_buffer(draft, &size);
    CHECK_EQUAL(mb_plan_load(run.buffer, size, &plan, &bad_op), 0);
    run.record = mb_record_new(plan.op_count);
    int pair[2];
    CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
    slots[STATUS] = pair[1];
    run.status_socket = pair[0];
    run.pid = mb_spawn(&plan, 0, -1, slots, SLOTS, run.record, &run.pidfd);
    CHECK(run.pid > 0);
    close(pair[1]);
    return run;
}

static inline void finish(struct run *run) { CHECK(waitpid(run->pid, &run->wait_status, 0) == run->pid); }

static inline void forget(struct run *run) {
    mb_record_free(run->record, (uint32_t)run->op_count);
    free(run->buffer);
    close(run->pidfd);
    close(run->status_socket);
}

/* Run to the end; the errno of the step that failed, 0 when none did. */
static inline int32_t error_of(const struct draft *draft) {
    struct run run = start(draft);
    finish(&run);
    CHECK(WIFEXITED(run.wait_status));
    CHECK_EQUAL(WEXITSTATUS(run.wait_status), run.record->state == MB_FAILED);
    CHECK(run.record->state == MB_FAILED || run.record->state == MB_DONE);
    int32_t error = run.record->state == MB_FAILED ? run.record->error : 0;
    forget(&run);
    return error;
}

/* The wait status of a command of /bin/sh that is run behind the operations of `draft`. */
static inline int shell(struct draft *draft, const char *command) {
    draft_exec(draft, STRINGS("/bin/sh"), STRINGS("sh", "-c", command), STRINGS("A=b"));
    struct run run = start(draft);
    finish(&run);
    CHECK_EQUAL(run.record->state, MB_EXEC);
    forget(&run);
    return run.wait_status;
}

static inline void check_directory(const char *path, mode_t mode) {
    struct stat status;
    CHECK(!lstat(below(path), &status) && S_ISDIR(status.st_mode));
    CHECK_EQUAL(status.st_mode & 07777, mode);
}

static inline void check_absent(const char *path) {
    CHECK(faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) && errno == ENOENT);
}

static inline void put_file(const char *path, const char *text, mode_t mode) {
    int fd = open(below(path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !fchmod(fd, mode));
    close(fd);
}

static inline void remove_all(const char *directory) {
    pid_t pid = fork();
    if (!pid) {
        execlp("rm", "rm", "-rf", "--", directory, (char *)NULL);
        _exit(127);
    }
    waitpid(pid, NULL, 0);
}

static inline int run_tests(const char *name, const struct test *tests, size_t test_count) {
    for (size_t i = 0; i < test_count; i++) {
        const char *parent = getenv("TMPDIR");
        snprintf(root, sizeof root, "%s/mb-test-XXXXXX", parent ? parent : "/tmp");
        CHECK(mkdtemp(root) != NULL);
        memset(slots, -1, sizeof slots);
        /* A process of its own each: what a test changes of itself is gone with it. */
        pid_t pid = fork();
        if (!pid) {
            running = tests[i].name;
            slots[ROOT] = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
            alarm(20);
            tests[i].run();
            exit(0);
        }
        int status;
        CHECK(waitpid(pid, &status, 0) == pid);
        remove_all(root);
        if (status) {
            fprintf(stderr, "%s failed\n", tests[i].name);
            return 1;
        }
    }
    printf("%s: %zu passed\n", name, test_count);
    return 0;
}

#endif
