/* Operations on files and directories below a root, which nothing leads out of. */
#include "run.h"

static int32_t mkdir_error(const char *path) {
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_mkdir, U(ROOT), draft_string(&draft, path), U(0750));
    return error_of(&draft);
}

static void mkdir_makes_parents(void) {
    CHECK_EQUAL(mkdir_error("/a//b/c/"), 0);
    check_directory("/a", 0750);
    check_directory("/a/b/c", 0750);
    CHECK_EQUAL(mkdir_error("/a/b/c"), 0); /* there already */
    CHECK_EQUAL(mkdir_error("/"), 0);
    CHECK_EQUAL(mkdir_error("/a/new/../other"), 0);
    check_directory("/a/new", 0750);
    check_directory("/a/other", 0750);
}

static void mkdir_stays_below_the_root(void) {
    CHECK_EQUAL(mkdir_error("/../../up"), 0);
    check_directory("/up", 0750);
    CHECK(!symlink("/", below("/top")) && !symlink("/tmp/mb-outside", below("/dangling")));
    CHECK(!symlink("../../../../..", below("/above")) && !mkdir(below("/real"), 0700) &&
          !symlink("/real", below("/to")));
    CHECK_EQUAL(mkdir_error("/top/mb-outside"), 0);
    check_directory("/mb-outside", 0750);
    check_absent("/mb-outside");
    CHECK_EQUAL(mkdir_error("/above/mb-above/x"), 0);
    check_directory("/mb-above/x", 0750);
    CHECK_EQUAL(mkdir_error("/to/x/y"), 0);
    check_directory("/real/x/y", 0750);
    CHECK_EQUAL(mkdir_error("/dangling"), ENOENT);
    CHECK_EQUAL(mkdir_error("/dangling/x"), ENOENT);
    check_absent("/tmp/mb-outside");
}

static void mkdir_says_what_is_in_the_way(void) {
    put_file("/file", "", 0600);
    CHECK_EQUAL(mkdir_error("/file"), ENOTDIR);
    CHECK_EQUAL(mkdir_error("/file/x"), ENOTDIR);
    CHECK(!symlink("loop", below("/loop")));
    CHECK_EQUAL(mkdir_error("/loop/x"), ELOOP);
    char path[PATH_MAX + 1];
    memset(path, 'a', PATH_MAX);
    path[0] = '/';
    path[PATH_MAX] = '\0';
    CHECK_EQUAL(mkdir_error(path), ENAMETOOLONG);
    path[300] = '\0';
    CHECK_EQUAL(mkdir_error(path), ENAMETOOLONG);
}

static void symlinks_and_nodes_are_made_below_the_root(void) {
    struct stat status;
    char target[16] = {0};
    CHECK(!symlink("/", below("/top")));
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_symlink, draft_string(&draft, "/x"), U(ROOT), draft_string(&draft, "/top/link"));
    draft_op(&draft, MB_OP_mknod, U(ROOT), draft_string(&draft, "/top/fifo"), U(S_IFIFO | 0640), U(0), U(getuid()),
             U(getgid()));
    CHECK_EQUAL(error_of(&draft), 0);
    CHECK(readlink(below("/link"), target, sizeof target) == 2 && !strcmp(target, "/x"));
    CHECK(!lstat(below("/fifo"), &status) && status.st_mode == (S_IFIFO | 0640));
    CHECK_EQUAL(error_of(&draft), 0); /* what is there stays */
    CHECK(!lstat(below("/fifo"), &status) && status.st_mode == (S_IFIFO | 0640));

    struct draft without = draft_new();
    draft_op(&without, MB_OP_symlink, draft_string(&without, "/x"), U(ROOT), draft_string(&without, "/no/link"));
    CHECK_EQUAL(error_of(&without), ENOENT);
    struct draft relative = draft_new();
    draft_op(&relative, MB_OP_symlink, draft_string(&relative, "/x"), U(ROOT), draft_string(&relative, "link"));
    CHECK_EQUAL(error_of(&relative), EINVAL);
}

static void files_are_written_below_the_root(void) {
    char outside[] = "/tmp/mb-test-outside-XXXXXX", text[8] = {0};
    int fd = mkstemp(outside);
    CHECK(fd >= 0 && !symlink(outside, below("/out")));
    put_file("/file", "....", 0600);
    CHECK(!symlink("/../file", below("/in")));
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_write_file, U(ROOT), draft_string(&draft, "/in"), draft_bytes(&draft, "a\0", 2));
    draft_op(&draft, MB_OP_write_file, U(ROOT), draft_string(&draft, "/out"), draft_bytes(&draft, "b", 1));
    CHECK_EQUAL(error_of(&draft), ENOENT);
    CHECK(read(fd, text, sizeof text) == 0);
    close(fd);
    unlink(outside);
    fd = open(below("/file"), O_RDONLY | O_CLOEXEC);
    CHECK(read(fd, text, sizeof text) == 4 && !memcmp(text, "a\0..", 4));
    close(fd);
}

static void chdir_changes_the_directory(void) {
    CHECK(!mkdir(below("/here"), 0700));
    put_file("/here/file", "", 0600);
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_chdir, draft_string(&draft, below("/here")));
    CHECK_EQUAL(shell(&draft, "test -f file"), 0);
    const char *const wrong[] = {"/here/file", "/here/none"};
    const int errors[] = {ENOTDIR, ENOENT};
    for (size_t i = 0; i < 2; i++) {
        draft = draft_new();
        draft_op(&draft, MB_OP_chdir, draft_string(&draft, below(wrong[i])));
        CHECK_EQUAL(error_of(&draft), errors[i]);
    }
    /* CVE-2024-21626: a working directory in what a descriptor holds open. */
    draft = draft_new();
    draft_op(&draft, MB_OP_open, draft_string(&draft, "/"), U(O_PATH | O_DIRECTORY), U(SCRATCH));
    draft_op(&draft, MB_OP_chdir, draft_string(&draft, "/proc/self/fd/3"));
    CHECK_EQUAL(error_of(&draft), ELOOP);
}

static void what_is_opened_below_the_root_is_written_to_later(void) {
    char text[8] = {0};
    put_file("/file", "", 0600);
    CHECK(!symlink("/../file", below("/link")));
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_open_in, U(ROOT), draft_string(&draft, "/link"), U(O_WRONLY), U(OUT));
    draft_op(&draft, MB_OP_label, U(OUT), draft_bytes(&draft, "exec a", 6));
    CHECK_EQUAL(error_of(&draft), 0);
    int fd = open(below("/file"), O_RDONLY | O_CLOEXEC);
    CHECK(read(fd, text, sizeof text) == 6 && !memcmp(text, "exec a", 6));
    close(fd);
    struct draft none = draft_new();
    draft_op(&none, MB_OP_open_in, U(ROOT), draft_string(&none, "/none"), U(O_WRONLY), U(OUT));
    CHECK_EQUAL(error_of(&none), ENOENT);
}

/* ---- the tests ---------------------------------------------------------------------------- */

static const struct test tests[] = {
    TEST(mkdir_makes_parents),
    TEST(mkdir_stays_below_the_root),
    TEST(mkdir_says_what_is_in_the_way),
    TEST(symlinks_and_nodes_are_made_below_the_root),
    TEST(files_are_written_below_the_root),
    TEST(chdir_changes_the_directory),
    TEST(what_is_opened_below_the_root_is_written_to_later),
};
static const size_t test_count = sizeof tests / sizeof *tests;

int main(void) { return run_tests("test_paths", tests, test_count); }
