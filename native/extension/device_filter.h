/* Attach a device filter to a cgroup v2 directory. */
#ifndef MB_DEVICE_FILTER_H
#define MB_DEVICE_FILTER_H

/* Load `count` instructions (struct bpf_insn) as a BPF_PROG_TYPE_CGROUP_DEVICE program and attach it to the cgroup
 * with the directory `cgroup_fd`. The kernel keeps it as long as the cgroup. Returns 0, or -errno of bpf(2). */
int mb_bpf_device_attach(int cgroup_fd, const void *insns, unsigned count);

#endif
