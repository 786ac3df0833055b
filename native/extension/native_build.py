"""Build `minibox._native`: the C part as a cffi extension in API mode (compiled, not dlopen'ed)."""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

NATIVE = Path(__file__).resolve().parents[1]
SOURCES = ["plan.c", "remove.c", "parent/spawn.c"]
for folder in ("child", "extension"):
    SOURCES += sorted(str(path.relative_to(NATIVE)) for path in (NATIVE / folder).glob("*.c"))

ffibuilder = FFI()
ffibuilder.cdef("""
    struct mb_op_signature { const char *name; const char *arguments; };
    extern const struct mb_op_signature mb_op_signatures[];
    extern const unsigned mb_op_count;
    extern const struct mb_op_signature mb_end_signatures[];
    extern const unsigned mb_end_count;

    struct mb_plan { uint32_t op_count; ...; };
    int mb_plan_load(void *buffer, size_t size, struct mb_plan *plan, uint32_t *bad_op);

    struct mb_time { uint64_t begin_ns; uint64_t end_ns; };
    struct mb_record { uint32_t state; uint32_t index; int32_t error; uint32_t detail; uint32_t first; uint32_t sibling;
                       struct mb_time time[]; };
    int mb_spawn_here(const struct mb_plan *plan, uint64_t flags, const int *slots, uint32_t slot_count,
                      struct mb_record *record, int *pidfd);

    void mb_fd_close(int *fd);
    int mb_fd_copy(int fd, int *to);
    void mb_fd_move(int *from, int *to);
    struct mb_view { struct mb_record *record; uint32_t size; int memory_fd; };
    int mb_view_make(struct mb_view *view, uint32_t size, int in_file);
    void mb_view_free(struct mb_view *view);
    struct mb_program { int pid; int pidfd; };
    int mb_program_start(struct mb_program *program, const char *path, char *const *argv, char *const *envp,
                         const int *fds, unsigned fd_count);
    void mb_program_free(struct mb_program *program);
    struct mb_delivery { int length; int fd; char data[64]; };
    enum { MB_PEER_DEAD = -2 };
    int mb_delivery_take(struct mb_delivery *message, int socket, int peer);
    void mb_delivery_free(struct mb_delivery *message);

    struct mb_caller { uint64_t number[96]; };
    void mb_caller(struct mb_caller *caller);

    int mb_open_image(const char *path);
    int mb_remove(int dir_fd, const char *name, int depth);
    enum { MB_REMOVE_DEPTH = 32 };
    enum { MB_LIST_BYTES = 32768, MB_LIST_FILES = 1365 };
    struct mb_file { uint64_t device; uint64_t inode; uint64_t size; int64_t modified_ns; int64_t changed_ns; uint32_t mode;
                     uint32_t uid; uint32_t gid; uint32_t links; uint64_t node; };
    int mb_list(int dir_fd, struct mb_file *files, char *names, uint32_t *size);
    enum { MB_SMALL_BYTES = 65536 };
    struct mb_small_file { struct mb_file file; uint32_t plain; ...; };
    uint32_t mb_read_small_files(int dir_fd, const char *names, uint32_t count, struct mb_small_file *files, char *content,
                                 size_t size);
    struct mb_new_file { int64_t modified_ns; uint32_t mode; uint32_t uid; uint32_t gid; uint32_t size; };
    uint32_t mb_write_small_files(int dir_fd, const char *names, uint32_t count, const struct mb_new_file *files,
                                  const char *content);
    int mb_bpf_device_attach(int cgroup_fd, const void *instructions, unsigned count);

    /* One system call each, for lessons and tests: -1 and errno (ffi.errno) on failure. */
    int unshare(int flags);
    int setns(int fd, int nstype);
    int mb_pivot_root(const char *new_root, const char *put_old);
    int mb_mount(const char *source, const char *target, const char *fstype, unsigned long flags, const char *data);
    int umount2(const char *target, int flags);
    int mb_open_tree(int dirfd, const char *path, unsigned flags);
    int mb_move_mount(int from_fd, const char *from, int to_fd, const char *to, unsigned flags);
    struct mb_mount_attr { uint64_t attr_set; uint64_t attr_clr; uint64_t propagation; uint64_t userns_fd; };
    int mb_mount_setattr(int dirfd, const char *path, unsigned flags, struct mb_mount_attr *attr);
    int mb_pidfd_open(int pid, unsigned flags);
    int mb_pidfd_send_signal(int pidfd, int signal_number);
    int mb_pidfd_kill_group(int pidfd);
    int mb_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
    int mb_prctl(int option, unsigned long argument);
    int mb_signal_restarts(int number);
    int syncfs(int fd);
""")
ffibuilder.set_source(
    "minibox._native",
    """
    #include "extension/caller.h"
    #include "extension/peer.h"
    #include "syscalls.h"
    #include "extension/device_filter.h"
    #include "child/image.h"
    #include "extension/list.h"
    #include "remove.h"
    #include "extension/small_files.h"
    #include <signal.h>
    #include <sys/prctl.h>
    #include <sys/wait.h>

    /* Run a plan with CLONE_VM to its end, and reap its process; without CLONE_VM the caller does that. */
    static int mb_spawn_here(const struct mb_plan *plan, uint64_t flags, const int *slots, uint32_t slot_count,
                             struct mb_record *record, int *pidfd) {
        pid_t pid = mb_spawn(plan, flags, -1, slots, slot_count, record, pidfd);
        while (flags & CLONE_VM && pid > 0 && waitpid(pid, NULL, __WALL) < 0 && errno == EINTR) {
        }
        return pid;
    }

    static int mb_mount(const char *source, const char *target, const char *fstype, unsigned long flags,
                        const char *data) {
        return mount(source, target, fstype, flags, data);
    }

    static int mb_prctl(int option, unsigned long argument) { return prctl(option, argument, 0, 0, 0); }

    static int mb_signal_restarts(int number) {
        struct sigaction action;
        return !sigaction(number, NULL, &action) && action.sa_flags & SA_RESTART;
    }
    """,
    sources=[f"native/{name}" for name in SOURCES],
    depends=[str(path) for pattern in ("**/*.h", "*.def") for path in NATIVE.glob(pattern)],
    define_macros=[("_GNU_SOURCE", None)],
    # Not among the directories of <spawn.h>.
    extra_compile_args=[
        "-iquote",
        str(NATIVE),
        "-std=gnu17",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Wno-unused-parameter",
        "-fvisibility=hidden",
    ],
)

if __name__ == "__main__":
    ffibuilder.compile(tmpdir=str(NATIVE.parent), verbose=True)
