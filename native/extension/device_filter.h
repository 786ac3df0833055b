/* Attaching a device filter to a cgroup v2 directory. */
#ifndef MB_DEVICE_FILTER_H
#define MB_DEVICE_FILTER_H

/* Load `count` instructions (struct bpf_insn) as a BPF_PROG_TYPE_CGROUP_DEVICE program and attach it to the
 * cgroup that `cgroup_fd` is a directory of. The kernel keeps it until the cgroup is gone.
 * Returns 0, or -errno of bpf(2). */
int mb_bpf_device_attach(int cgroup_fd, const void *insns, unsigned count);

#endif
