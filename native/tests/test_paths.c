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
    CHECK_EQUAL(mkdir_error("/dangling/x"), 0);
    check_directory("/tmp/mb-outside/x", 0750);
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
             U(getgid()), draft_string(&draft, ""));
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

static void what_is_for_the_kernel_goes_to_procfs_only(void) {
    char text[8] = {0};
    put_file("/file", "....", 0600);
    CHECK(!symlink("/../file", below("/in")));
    const char *const wrong[] = {"/file", "/in", "/none"};
    const int errors[] = {EMEDIUMTYPE, EMEDIUMTYPE, ENOENT};
    for (size_t i = 0; i < 3; i++) {
        struct draft draft = draft_new();
        draft_op(&draft, MB_OP_write_proc, U(ROOT), draft_string(&draft, wrong[i]), draft_bytes(&draft, "a", 1));
        CHECK_EQUAL(error_of(&draft), errors[i]);
    }
    int fd = open(below("/file"), O_RDONLY | O_CLOEXEC);
    CHECK(read(fd, text, sizeof text) == 4 && !memcmp(text, "....", 4));
    close(fd);
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_write_proc, MB_HOST, draft_string(&draft, "/proc/self/comm"),
             draft_bytes(&draft, "told", 4));
    draft_op(&draft, MB_OP_open, draft_string(&draft, "/proc"), U(O_PATH), U(SCRATCH));
    draft_op(&draft, MB_OP_expect_procfs, U(SCRATCH));
    draft_op(&draft, MB_OP_write_proc, U(SCRATCH), draft_string(&draft, "/self/comm"), draft_bytes(&draft, "told", 4));
    CHECK_EQUAL(error_of(&draft), 0);
    draft_op(&draft, MB_OP_write_proc, U(SCRATCH) | MB_NO_LINKS, draft_string(&draft, "/self/comm"),
             draft_bytes(&draft, "told", 4));
    CHECK_EQUAL(error_of(&draft), ELOOP);
    const char *const others[] = {"/", "/proc/sys", "/dev", "/proc/self/root"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        draft = draft_new();
        draft_op(&draft, MB_OP_open, draft_string(&draft, others[i]), U(O_PATH), U(SCRATCH));
        draft_op(&draft, MB_OP_expect_procfs, U(SCRATCH));
        CHECK_EQUAL(error_of(&draft), EMEDIUMTYPE);
    }
}

/* What a mount point, a device or the working directory needs is made where links lead, as docker and runc do, and
 * not where none may be. */
static void what_links_lead_to_is_made_inside(void) {
    CHECK(!mkdir(below("/var"), 0700) && !symlink("/run/lock", below("/var/lock")) &&
          !symlink("lock/a", below("/var/a")));
    CHECK(!symlink("../../..//./x/", below("/var/up")) && !symlink("var/up/../y", below("/chain")));
    CHECK(!symlink("b", below("/a")) && !symlink("a", below("/b")) && !symlink("/proc/self/root/z", below("/magic")));
    CHECK_EQUAL(mkdir_error("/var/lock"), 0);
    check_directory("/run/lock", 0750);
    CHECK_EQUAL(mkdir_error("/var/a/deep"), 0);
    check_directory("/run/lock/a/deep", 0750);
    CHECK_EQUAL(mkdir_error("/chain/z"), 0);
    check_directory("/x", 0750);
    check_directory("/y/z", 0750);
    CHECK_EQUAL(mkdir_error("/magic/w"), 0); /* as it is in this root */
    check_directory("/proc/self/root/z/w", 0750);
    CHECK_EQUAL(mkdir_error("/a/c"), ELOOP);
    CHECK_EQUAL(mkdir_error("/a"), ELOOP);
    const char *const by_links[] = {"/var/lock", "/var/lock/x", "/a", "/chain/z"};
    for (size_t i = 0; i < sizeof by_links / sizeof *by_links; i++) {
        struct draft draft = draft_new();
        draft_op(&draft, MB_OP_mkdir, U(ROOT) | MB_NO_LINKS, draft_string(&draft, by_links[i]), U(0750));
        CHECK_EQUAL(error_of(&draft), ELOOP);
    }
    struct draft draft = draft_new();
    draft_op(&draft, MB_OP_mkdir, U(ROOT) | MB_NO_LINKS, draft_string(&draft, "/var/new/x"), U(0750));
    CHECK_EQUAL(error_of(&draft), 0);
    check_directory("/var/new/x", 0750);
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
    draft_op(&draft, MB_OP_write_fd, U(OUT), draft_bytes(&draft, "exec a", 6));
    CHECK_EQUAL(error_of(&draft), 0);
    int fd = open(below("/file"), O_RDONLY | O_CLOEXEC);
    CHECK(read(fd, text, sizeof text) == 6 && !memcmp(text, "exec a", 6));
    close(fd);
    draft.ops[1].code = MB_OP_label; /* that is for a file of the process's in /proc alone */
    CHECK_EQUAL(error_of(&draft), EMEDIUMTYPE);
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
    TEST(what_is_for_the_kernel_goes_to_procfs_only),
    TEST(what_links_lead_to_is_made_inside),
    TEST(chdir_changes_the_directory),
    TEST(what_is_opened_below_the_root_is_written_to_later),
};
static const size_t test_count = sizeof tests / sizeof *tests;

int main(void) { return run_tests("test_paths", tests, test_count); }
