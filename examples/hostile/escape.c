/* Tries the usual ways out; exits with the number of those that worked. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int escapes;

static void attempt(const char *what, int worked) {
    if (worked) {
        printf("%s works\n", what);
        escapes++;
    }
}

int main(void) {
    attempt("mounting proc", !mount("proc", "/", "proc", 0, NULL));
    attempt("remounting the root", !mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
    attempt("a user namespace", !unshare(CLONE_NEWUSER));
    attempt("chroot out of here",
            !mkdir("/d", 0700) && !chroot("/d") && !chdir("../../../..") && !access("etc/shadow", F_OK));
    attempt("a disk's device", !mknod("/sda", S_IFBLK | 0600, 8 << 8) && open("/sda", O_RDONLY) >= 0);
    for (pid_t pid = 2; pid < 5000; pid++) {
        attempt("a process of others", pid != getpid() && !ptrace(PTRACE_ATTACH, pid, NULL, NULL));
    }
    attempt("the host's passwords", open("/etc/shadow", O_RDONLY) >= 0 || open("/../etc/shadow", O_RDONLY) >= 0);
    attempt("the host's root by /proc", open("/proc/1/root/usr", O_RDONLY) >= 0);
    char byte;
    attempt("the kernel's memory", read(open("/proc/kcore", O_RDONLY), &byte, 1) == 1);
    attempt("a kernel setting", open("/proc/sys/kernel/core_pattern", O_WRONLY) >= 0);
    attempt("a trigger of the kernel's", open("/proc/sysrq-trigger", O_WRONLY) >= 0);
    attempt("a kernel module", syscall(SYS_init_module, "", 0, "") == 0 || errno == ENOEXEC);
    attempt("the keys of others", syscall(SYS_keyctl, 0, -4, 0) >= 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(0x08080808)};
    int network = socket(AF_INET, SOCK_STREAM, 0);
    attempt("the network", !connect(network, (struct sockaddr *)&address, sizeof address));
    attempt("packets", socket(AF_PACKET, SOCK_RAW, 0) >= 0);
    puts(escapes ? "out" : "nothing works");
    return escapes;
}
