/* The kernel's floor: what a minibox start costs when nothing but its system calls is done.
 *
 *     floor [-g CGROUP_DIRECTORY]... [-f SECCOMP_FILTER] LAYER STATE COUNT
 *
 * LAYER is an unpacked root file system with /proc, /sys, /dev and /bin/true in it, STATE a directory
 * for upperdirs, not on overlayfs. Prints one start's microseconds a line: cgroups, the upperdir, two
 * processes (a mounter that id-maps the layers, the container), the mounts, seccomp, execve, the end,
 * and the removal of all that. It is a measure, not an example: it checks little and cleans up only
 * when all goes well. */
#include "../../native/syscalls.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define ID_BASE 1879048192U
#define MAX_CGROUPS 16
#define MAX_FILTER 4096

static const char *const masked_files[] = {"/proc/kcore", "/proc/keys", "/proc/timer_list"};
static const char *const masked_directories[] = {"/proc/acpi", "/proc/scsi", "/sys/firmware"};
static const char *const read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
static const char *const links[][2] = {
    {"/proc/self/fd", "/dev/fd"},       {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"},
    {"/proc/self/fd/2", "/dev/stderr"}, {"pts/ptmx", "/dev/ptmx"},
};
#define COUNT(array) (sizeof(array) / sizeof *(array))

struct floor {
    const char *layer;
    const char *state;
    const char *cgroups[MAX_CGROUPS];
    int cgroup_count;
    struct sock_filter filter[MAX_FILTER];
    unsigned filter_count;
};

static void check(bool good, const char *what) {
    if (!good) {
        perror(what);
        _exit(1);
    }
}

static void write_to(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    check(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), path);
    close(fd);
}

static pid_t clone_with(uint64_t flags, int cgroup_fd) {
    struct mb_clone_args args = {.flags = flags, .exit_signal = SIGCHLD};
    if (cgroup_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)cgroup_fd;
    }
    pid_t pid = mb_clone3(&args);
    check(pid >= 0, "clone3");
    return pid;
}

static void send_fd(int channel, int fd) {
    char control[CMSG_SPACE(sizeof fd)] = {0}, byte = 0;
    struct iovec iov = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    check(sendmsg(channel, &message, 0) == 1, "sendmsg");
}

static int receive_fd(int channel) {
    char control[CMSG_SPACE(sizeof(int))], byte;
    struct iovec iov = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    check(recvmsg(channel, &message, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&message), "recvmsg");
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

/* Clone a directory as a detached mount with the container's ids, and attach it. */
static void attach_id_mapped(const char *path, int userns_fd, const char *target) {
    int tree = mb_open_tree(AT_FDCWD, path, 1 | O_CLOEXEC);
    struct mb_mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns_fd};
    check(tree >= 0 && mb_mount_setattr(tree, "", AT_EMPTY_PATH, &attr) == 0, path);
    check(mkdir(target, 0755) == 0 && mb_move_mount(tree, "", AT_FDCWD, target, 4) == 0, target);
    close(tree);
}

static void run_mounter(const struct floor *floor, const char *stage, int userns_fd, int channel) {
    check(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "propagation");
    check(mount("floor", stage, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") == 0, "tmpfs");
    check(chdir(stage) == 0, stage);
    attach_id_mapped(floor->layer, userns_fd, "0");
    attach_id_mapped("..", userns_fd, "rw");
    check(mkdir("root", 0755) == 0, "root");
    setfsgid(ID_BASE);
    setfsuid(ID_BASE);
    struct {
        unsigned version;
        int pid;
    } header = {0x20080522, 0};
    struct {
        unsigned effective, permitted, inheritable;
    } data[2];
    check(syscall(SYS_capget, &header, data) == 0, "capget");
    data[0].effective = data[0].permitted;
    data[1].effective = data[1].permitted;
    check(syscall(SYS_capset, &header, data) == 0, "capset");
    check(mount("overlay", "root", "overlay", 0, "lowerdir=0,upperdir=rw/upper,workdir=rw/work,volatile") == 0,
          "overlay");
    int tree = mb_open_tree(AT_FDCWD, "root", 1 | O_CLOEXEC);
    check(tree >= 0, "open_tree");
    send_fd(channel, tree);
    _exit(0);
}

static void fresh(const char *fstype, const char *target, unsigned long flags, const char *options) {
    check(mount(fstype, target, fstype, flags, options) == 0, target);
}

static void loopback_up(void) {
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    check(control >= 0 && ioctl(control, SIOCSIFFLAGS, &request) == 0, "lo");
    close(control);
}

static void furnish(void) {
    char target[64], source[64];
    fresh("proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    fresh("tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    check(mkdir("dev/pts", 0755) == 0 && mkdir("dev/shm", 0755) == 0 && mkdir("dev/mqueue", 0755) == 0, "dev");
    fresh("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    fresh("tmpfs", "dev/shm", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k");
    fresh("mqueue", "dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    fresh("sysfs", "sys", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL);
    for (size_t i = 0; i < COUNT(devices); i++) {
        snprintf(source, sizeof source, "/dev/%s", devices[i]);
        snprintf(target, sizeof target, "dev/%s", devices[i]);
        close(open(target, O_CREAT | O_WRONLY | O_CLOEXEC, 0666));
        check(mount(source, target, NULL, MS_BIND, NULL) == 0, target);
    }
    for (size_t i = 0; i < COUNT(links); i++) {
        check(symlink(links[i][0], links[i][1] + 1) == 0, links[i][1]);
    }
}

static void close_up(void) {
    for (size_t i = 0; i < COUNT(read_only); i++) {
        const char *path = read_only[i] + 1;
        if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) == 0) {
            struct mb_mount_attr attr = {.attr_set = 1};
            check(mb_mount_setattr(AT_FDCWD, path, 0, &attr) == 0, path);
        }
    }
    for (size_t i = 0; i < COUNT(masked_files); i++) {
        mount("/dev/null", masked_files[i] + 1, NULL, MS_BIND, NULL);
    }
    for (size_t i = 0; i < COUNT(masked_directories); i++) {
        mount("tmpfs", masked_directories[i] + 1, "tmpfs", MS_RDONLY, "size=0,nr_inodes=1");
    }
    check(mb_pivot_root(".", ".") == 0 && umount2(".", MNT_DETACH) == 0 && chdir("/") == 0, "pivot_root");
}

static void run_container(const struct floor *floor, const int *tasks, int channel, int go) {
    char byte;
    check(read(go, &byte, 1) == 1, "wait for the id maps");
    for (int i = 0; i < floor->cgroup_count; i++) {
        check(tasks[i] < 0 || write(tasks[i], "0", 1) == 1, "cgroup");
    }
    check(syscall(SYS_setresgid, 0, 0, 0) == 0 && syscall(SYS_setresuid, 0, 0, 0) == 0, "root inside");
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    check(unshare(CLONE_NEWCGROUP) == 0, "cgroup namespace");
    check(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "propagation");
    int root = receive_fd(channel);
    check(mb_move_mount(root, "", AT_FDCWD, "/tmp", 4) == 0, "attach the root");
    check(fchdir(root) == 0, "fchdir");
    furnish();
    check(sethostname("floor", 5) == 0, "sethostname");
    loopback_up();
    close_up();
    setsid();
    struct rlimit limit = {1024, 524288};
    setrlimit(RLIMIT_NOFILE, &limit);
    for (int cap = 0; cap <= 40; cap++) {
        prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    }
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    struct sock_fprog program = {(unsigned short)floor->filter_count, (struct sock_filter *)floor->filter};
    check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0, "seccomp");
    char *argv[] = {"true", NULL}, *environment[] = {NULL};
    execve("/bin/true", argv, environment);
    check(false, "execve");
}

static void map_ids(pid_t pid) {
    char path[64], line[64];
    snprintf(line, sizeof line, "0 %u 65536", ID_BASE);
    snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
    write_to(path, line);
    snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
    write_to(path, line);
}

/* In v1 a thread moves itself by writing to tasks, which takes no lock on all processes of the host;
 * in v2 the process is born in its cgroup. */
static void make_cgroups(const struct floor *floor, int *tasks, int *v2_fd) {
    char path[256];
    *v2_fd = -1;
    for (int i = 0; i < floor->cgroup_count; i++) {
        snprintf(path, sizeof path, "%s/minibox-floor-%d", floor->cgroups[i], getpid());
        check(mkdir(path, 0755) == 0, path);
        int directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        check(directory >= 0, path);
        tasks[i] = openat(directory, "tasks", O_WRONLY | O_CLOEXEC);
        if (tasks[i] < 0) {
            *v2_fd = directory;
        } else {
            close(directory);
        }
    }
}

static void remove_cgroups(const struct floor *floor, const int *tasks) {
    char path[256];
    for (int i = 0; i < floor->cgroup_count; i++) {
        if (tasks[i] >= 0) {
            close(tasks[i]);
        }
        snprintf(path, sizeof path, "%s/minibox-floor-%d", floor->cgroups[i], getpid());
        check(rmdir(path) == 0, path);
    }
}

static void start(const struct floor *floor) {
    int tasks[MAX_CGROUPS], v2_fd, channel[2], go[2], status;
    char stage[512], userns[64];
    snprintf(stage, sizeof stage, "%s/stage", floor->state);
    check(chdir(floor->state) == 0, floor->state);
    check(mkdir("upper", 0755) == 0 && mkdir("work", 0700) == 0 && mkdir("stage", 0700) == 0, "upperdir");
    make_cgroups(floor, tasks, &v2_fd);
    check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) == 0 && pipe2(go, O_CLOEXEC) == 0, "pipes");

    pid_t container =
        clone_with(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC, v2_fd);
    if (container == 0) {
        run_container(floor, tasks, channel[0], go[0]);
    }
    map_ids(container);
    snprintf(userns, sizeof userns, "/proc/%d/ns/user", container);
    int userns_fd = open(userns, O_RDONLY | O_CLOEXEC);
    pid_t mounter = clone_with(CLONE_NEWNS, -1);
    if (mounter == 0) {
        run_mounter(floor, stage, userns_fd, channel[1]);
    }
    check(write(go[1], "", 1) == 1, "go");
    check(waitpid(mounter, &status, 0) == mounter && status == 0, "the mounter");
    check(waitpid(container, &status, 0) == container && status == 0, "the container");

    for (int i = 0; i < 2; i++) {
        close(channel[i]);
        close(go[i]);
    }
    close(userns_fd);
    if (v2_fd >= 0) {
        close(v2_fd);
    }
    remove_cgroups(floor, tasks);
    unlink("work/work/incompat/volatile/dirty");
    rmdir("work/work/incompat/volatile");
    rmdir("work/work/incompat");
    rmdir("work/work");
    check(rmdir("work") == 0 && rmdir("upper") == 0 && rmdir("stage") == 0, "clean up");
}

/* An allow-list of the size that minibox loads, when no filter is given: the kernel compiles it. */
static void make_filter(struct floor *floor) {
    unsigned count = 0;
    floor->filter[count++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned number = 0; number < 450; number++) {
        floor->filter[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
        floor->filter[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    floor->filter[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    floor->filter_count = count;
}

static void read_filter(struct floor *floor, const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = read(fd, floor->filter, sizeof floor->filter);
    check(fd >= 0 && size > 0, path);
    floor->filter_count = (unsigned)((size_t)size / sizeof *floor->filter);
    close(fd);
}

int main(int argc, char **argv) {
    static struct floor floor;
    make_filter(&floor);
    for (int option; (option = getopt(argc, argv, "g:f:")) != -1;) {
        if (option == 'g' && floor.cgroup_count < MAX_CGROUPS) {
            floor.cgroups[floor.cgroup_count++] = optarg;
        } else if (option == 'f') {
            read_filter(&floor, optarg);
        } else {
            return 2;
        }
    }
    if (argc - optind != 3) {
        fprintf(stderr, "usage: floor [-g CGROUP_DIRECTORY]... [-f SECCOMP_FILTER] LAYER STATE COUNT\n");
        return 2;
    }
    floor.layer = argv[optind];
    floor.state = argv[optind + 1];
    for (int left = atoi(argv[optind + 2]); left > 0; left--) {
        struct timespec begin, end;
        clock_gettime(CLOCK_MONOTONIC, &begin);
        start(&floor);
        clock_gettime(CLOCK_MONOTONIC, &end);
        printf("%.1f\n", (double)(end.tv_sec - begin.tv_sec) * 1e6 + (double)(end.tv_nsec - begin.tv_nsec) / 1e3);
    }
    return 0;
}
