/* The operations of a container's end: each does its part, doing it twice is no error, and what it can't do for certain
 * it leaves alone. */
#include "check.h"
#include "draft.h"

#include "parent/end.h"
#include "remove.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#define ID "0123456789abcdef"

static char root[] = "/tmp/mb-test-end-XXXXXX";

/* A path in the test's directory; as a string of a draft. */
static const char *at(const char *path) {
    static char whole[4][PATH_MAX];
    static unsigned next;
    char *found = whole[next++ % 4];
    snprintf(found, PATH_MAX, "%s/%s", root, path);
    return found;
}

static void make(const char *path, const char *content) {
    FILE *file = fopen(at(path), "w");
    CHECK(file && fputs(content, file) >= 0 && !fclose(file));
}

static int there(const char *path) {
    struct stat found;
    return !lstat(at(path), &found);
}

static struct mb_op *add(struct draft *draft, enum mb_end_code code, const uint64_t arguments[MB_OP_ARGUMENTS]) {
    struct mb_op *op = &draft->ops[draft->header.op_count++];
    *op = (struct mb_op){.code = code};
    memcpy(op->argument, arguments, strlen(mb_end_signatures[code].arguments) * sizeof *arguments);
    return op;
}

#define ADD(draft, code, ...) add(draft, code, (const uint64_t[MB_OP_ARGUMENTS]){__VA_ARGS__})
#define TEXT(draft, string) draft_string(draft, string)

static int execute(const struct draft *draft, int claim) {
    size_t size;
    void *buffer = draft_buffer(draft, &size);
    struct mb_plan plan;
    uint32_t bad_op;
    int error = mb_end_load(buffer, size, &plan, &bad_op);
    error = error ? error : mb_end(&plan, &(struct mb_outcome){.claim = claim, .status = 7});
    free(buffer);
    return error;
}

static void files_and_links_are_removed(void) {
    make("file", "");
    CHECK(!symlink(ID, at("ids")) && !mkdir(at("names"), 0700));
    CHECK(!symlink(ID, at("names/mine")) && !symlink("other", at("names/others")));
    struct draft draft = draft_new();
    ADD(&draft, MB_END_remove_file, TEXT(&draft, at("file")));
    ADD(&draft, MB_END_remove_file, TEXT(&draft, at("file/below")));
    ADD(&draft, MB_END_release_ids, TEXT(&draft, at("ids")), TEXT(&draft, ID));
    ADD(&draft, MB_END_drop_names, TEXT(&draft, at("names")), TEXT(&draft, ID));
    ADD(&draft, MB_END_drop_names, TEXT(&draft, at("missing")), TEXT(&draft, ID));
    for (int twice = 0; twice < 2; twice++) {
        CHECK_EQUAL(execute(&draft, -1), 0);
        CHECK(!there("file") && !there("ids") && !there("names/mine") && there("names/others"));
    }
}

static void another_ones_stays(void) {
    CHECK(!symlink(ID "0", at("ids")));
    struct draft draft = draft_new();
    ADD(&draft, MB_END_release_ids, TEXT(&draft, at("ids")), TEXT(&draft, ID));
    CHECK_EQUAL(execute(&draft, -1), 0);
    CHECK(there("ids"));
}

static void a_lease_is_released_unless_there_are_names(void) {
    CHECK(!mkdir(at("net"), 0700) && !mkdir(at("net/leases"), 0700) && !mkdir(at("net/names"), 0700));
    CHECK(!symlink(ID, at("net/leases/10.0.0.2")));
    make("net/names/" ID, "");
    struct draft draft = draft_new();
    ADD(&draft, MB_END_leave_network, TEXT(&draft, at("net")), TEXT(&draft, "10.0.0.2"), TEXT(&draft, ID));
    CHECK_EQUAL(execute(&draft, -1), -EEXIST);
    CHECK(there("net/leases/10.0.0.2") && !unlink(at("net/names/" ID)));
    CHECK_EQUAL(execute(&draft, -1), 0);
    CHECK(!there("net/leases/10.0.0.2"));
    CHECK_EQUAL(execute(&draft, -1), 0);
}

static void conditions(void) {
    make("state", "");
    make("counts", "low 1\noom_kill 0\noom_kill_more 2\n");
    struct stat found;
    CHECK(!stat(at("state"), &found));
    uint64_t changed = (uint64_t)found.st_ctim.tv_sec * 1000000000 + (uint64_t)found.st_ctim.tv_nsec;
    struct draft holds = draft_new();
    ADD(&holds, MB_END_expect_file, TEXT(&holds, at("state")), found.st_ino, changed);
    ADD(&holds, MB_END_expect_none, TEXT(&holds, at("missing")));
    ADD(&holds, MB_END_expect_zero, TEXT(&holds, at("counts")), TEXT(&holds, "oom_kill"));
    ADD(&holds, MB_END_expect_zero, TEXT(&holds, at("missing")), TEXT(&holds, "oom_kill"));
    CHECK_EQUAL(execute(&holds, -1), 0);

    struct draft draft = draft_new();
    ADD(&draft, MB_END_expect_file, TEXT(&draft, at("state")), found.st_ino, changed + 1);
    CHECK_EQUAL(execute(&draft, -1), -ESTALE);
    draft = draft_new();
    ADD(&draft, MB_END_expect_none, TEXT(&draft, at("state")));
    CHECK_EQUAL(execute(&draft, -1), -EEXIST);
    draft = draft_new();
    ADD(&draft, MB_END_expect_zero, TEXT(&draft, at("counts")), TEXT(&draft, "low"));
    CHECK_EQUAL(execute(&draft, -1), -ERANGE);
}

static void nothing_follows_what_fails(void) {
    make("state", "");
    struct draft draft = draft_new();
    ADD(&draft, MB_END_expect_none, TEXT(&draft, at("state")));
    ADD(&draft, MB_END_remove_file, TEXT(&draft, at("state")));
    CHECK_EQUAL(execute(&draft, -1), -EEXIST);
    CHECK(there("state"));
}

static void a_cgroup_in_use_is_left(void) {
    CHECK(!mkdir(at("group"), 0700));
    make("group/cgroup.procs", "12\n");
    char label[PATH_MAX];
    snprintf(label, sizeof label, "memory:%s", at("group"));
    struct draft draft = draft_new();
    ADD(&draft, MB_END_kill_cgroup, draft_vector(&draft, STRINGS(label, ":/missing")));
    CHECK_EQUAL(execute(&draft, -1), -EBUSY);
    make("group/cgroup.procs", "");
    CHECK_EQUAL(execute(&draft, -1), 0);
    CHECK(!mkdir(at("group/below"), 0700));
    CHECK_EQUAL(execute(&draft, -1), -EBUSY);

    CHECK(!rmdir(at("group/below")) && !unlink(at("group/cgroup.procs")));
    draft = draft_new();
    ADD(&draft, MB_END_cgroup_rmdir, TEXT(&draft, at("group")));
    CHECK_EQUAL(execute(&draft, -1), 0);
    CHECK(!there("group"));
    CHECK_EQUAL(execute(&draft, -1), 0);
}

static void what_describes_a_container_goes_last(void) {
    CHECK(!mkdir(at(ID), 0700) && !mkdir(at(ID "/upper"), 0) && !mkdir(at("outside"), 0700));
    make("outside/file", "");
    make(ID "/state.json", "");
    CHECK(!symlink("..", at(ID "/out")) && !symlink(at("outside"), at(ID "/to")));
    char deep[PATH_MAX] = ID "/upper";
    CHECK(!chmod(at(deep), 0700));
    for (int i = 0; i <= MB_REMOVE_DEPTH; i++) {
        strcat(deep, "/d");
        CHECK(!mkdir(at(deep), 0700));
    }
    struct draft draft = draft_new();
    ADD(&draft, MB_END_remove_files, TEXT(&draft, root), TEXT(&draft, ID), draft_vector(&draft, STRINGS("state.json")));
    CHECK(execute(&draft, -1) < 0);
    CHECK(there(ID "/state.json"));
    CHECK(!rmdir(at(deep)));
    CHECK_EQUAL(execute(&draft, -1), 0);
    CHECK(!there(ID) && there("outside/file"));
}

static void the_state_is_replaced_if_it_is_the_same(void) {
    CHECK(!mkdir(at(ID), 0700));
    make(ID "/state.json", "{before");
    make("cpu", "usage_usec 1500000\nuser_usec 3\n");
    make("peak", "4096\n");
    struct stat found;
    CHECK(!stat(at(ID "/state.json"), &found));
    uint64_t changed = (uint64_t)found.st_ctim.tv_sec * 1000000000 + (uint64_t)found.st_ctim.tv_nsec;
    struct draft draft = draft_new();
    ADD(&draft, MB_END_measure_memory, TEXT(&draft, at("peak")));
    ADD(&draft, MB_END_measure_cpu, TEXT(&draft, at("cpu")), TEXT(&draft, "usage_usec"), 1000);
    ADD(&draft, MB_END_note_state, TEXT(&draft, root), TEXT(&draft, ID), TEXT(&draft, "{\n \"A\": 1"), found.st_ino,
        changed);
    CHECK_EQUAL(execute(&draft, -1), 0);
    char content[1024] = "";
    FILE *state = fopen(at(ID "/state.json"), "r");
    CHECK(state && fread(content, 1, sizeof content - 1, state));
    fclose(state);
    const char *wanted = "{\n \"A\": 1,\n \"Status\": \"exited\",\n \"Pid\": 0,\n \"ExitCode\": 7,\n";
    CHECK(!strncmp(content, wanted, strlen(wanted)));
    CHECK(strstr(content, "\"MemoryPeak\": 4096,\n \"CpuTime\": 1.500000000,\n \"Finished\": 0.000000000\n}\n") !=
          NULL);
    CHECK_EQUAL(execute(&draft, -1), -ESTALE); /* it is another one now */

    struct draft missing = draft_new();
    CHECK(!stat(at(ID "/state.json"), &found));
    changed = (uint64_t)found.st_ctim.tv_sec * 1000000000 + (uint64_t)found.st_ctim.tv_nsec;
    ADD(&missing, MB_END_measure_cpu, TEXT(&missing, at("cpu")), TEXT(&missing, "usage"), 1000);
    ADD(&missing, MB_END_measure_memory, TEXT(&missing, at("missing")));
    ADD(&missing, MB_END_note_state, TEXT(&missing, root), TEXT(&missing, ID), TEXT(&missing, "{"), found.st_ino,
        changed);
    CHECK_EQUAL(execute(&missing, -1), 0);
    state = fopen(at(ID "/state.json"), "r");
    CHECK(state && fread(content, 1, sizeof content - 1, state));
    fclose(state);
    CHECK(strstr(content, "\"MemoryPeak\": null,\n \"CpuTime\": null") != NULL);
    CHECK(!unlink(at(ID "/state.json")) && !rmdir(at(ID))); /* no temporary file is left */
}

static void status_and_events_are_written(void) {
    make("live", "image\n{\"Kind\": \"process\",\"Format\": 1,\"Pid\": 12345,\"Supervisor\": 12344,\"Command\": "
                 "[\"sleep\", \"10\"]}\n");
    int claim = open(at("live"), O_RDWR | O_CLOEXEC);
    struct draft draft = draft_new();
    ADD(&draft, MB_END_note_ended, 6);
    ADD(&draft, MB_END_note_events, TEXT(&draft, at("events")), TEXT(&draft, "{died \""), TEXT(&draft, "{gone"));
    CHECK_EQUAL(execute(&draft, claim), 0);
    char content[512] = "";
    CHECK(pread(claim, content, sizeof content - 1, 0) > 0);
    const char *wanted = "image\n{\"Kind\": \"process\",\"Format\": 1,\"Pid\": -1,\"Supervisor\": 0,\"Status\": 7}\n";
    CHECK(!strncmp(content, wanted, strlen(wanted)));
    close(claim);

    FILE *events = fopen(at("events"), "r");
    long long died, gone;
    CHECK(events &&
          fscanf(events, "{died \"7\"}},\"timeNano\": %lld}\n{gone}},\"timeNano\": %lld}", &died, &gone) == 2);
    CHECK(died > 1000000000000000000 && gone >= died && fgetc(events) == '\n' && fgetc(events) == EOF);
    fclose(events);

    CHECK(!unlink(at("events")));
    draft = draft_new();
    ADD(&draft, MB_END_note_events, TEXT(&draft, at("events")), TEXT(&draft, "{kept \""), MB_NONE);
    CHECK_EQUAL(execute(&draft, -1), 0);
    events = fopen(at("events"), "r");
    CHECK(events && fscanf(events, "{kept \"7\"}},\"timeNano\": %lld}", &died) == 1);
    CHECK(fgetc(events) == '\n' && fgetc(events) == EOF);
    fclose(events);

    CHECK(!unlink(at("events")) && !symlink("live", at("events")));
    draft = draft_new();
    ADD(&draft, MB_END_note_events, TEXT(&draft, at("events")), TEXT(&draft, "x"), TEXT(&draft, "y"));
    CHECK_EQUAL(execute(&draft, -1), 0); /* lost, and nothing was written through the link */
    CHECK(!stat(at("live"), &(struct stat){0}));
}

static void what_is_unknown_is_refused(void) {
    struct draft draft = draft_new();
    draft.ops[draft.header.op_count++] = (struct mb_op){.code = MB_END_COUNT};
    CHECK_EQUAL(execute(&draft, -1), -EINVAL);
}

int main(void) {
    const struct test tests[] = {
        TEST(files_and_links_are_removed),
        TEST(another_ones_stays),
        TEST(a_lease_is_released_unless_there_are_names),
        TEST(conditions),
        TEST(nothing_follows_what_fails),
        TEST(a_cgroup_in_use_is_left),
        TEST(what_describes_a_container_goes_last),
        TEST(the_state_is_replaced_if_it_is_the_same),
        TEST(status_and_events_are_written),
        TEST(what_is_unknown_is_refused),
    };
    const size_t count = sizeof tests / sizeof *tests;
    for (size_t i = 0; i < count; i++) {
        running = tests[i].name;
        CHECK(mkdtemp(root) != NULL);
        tests[i].run();
        CHECK(!mb_remove(AT_FDCWD, root, MB_REMOVE_DEPTH));
        strcpy(root + strlen(root) - 6, "XXXXXX");
    }
    printf("test_end: %zu passed\n", count);
    return 0;
}
