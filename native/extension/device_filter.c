#include "extension/device_filter.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* bpf(2) has no wrapper in the C library. The whole union is zeroed and passed, because the kernel refuses unknown
 * bytes that aren't zero. */
static int mb_bpf(int command, union bpf_attr *attr) { return (int)syscall(SYS_bpf, command, attr, sizeof *attr); }

int mb_bpf_device_attach(int cgroup_fd, const void *insns, unsigned count) {
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.insns = (uint64_t)(uintptr_t)insns;
    attr.insn_cnt = count;
    attr.license = (uint64_t)(uintptr_t) "Apache-2.0"; /* the program calls no GPL-only function */
    memcpy(attr.prog_name, "minibox_devices", sizeof "minibox_devices");
    int program = mb_bpf(BPF_PROG_LOAD, &attr);
    if (program < 0)
        return -errno;

    memset(&attr, 0, sizeof attr);
    attr.target_fd = (uint32_t)cgroup_fd;
    attr.attach_bpf_fd = (uint32_t)program;
    attr.attach_type = BPF_CGROUP_DEVICE;
    /* Otherwise a container manager inside couldn't attach filters of its own below. */
    attr.attach_flags = BPF_F_ALLOW_MULTI;
    int result = mb_bpf(BPF_PROG_ATTACH, &attr) < 0 ? -errno : 0;
    close(program); /* the cgroup keeps it now */
    return result;
}
