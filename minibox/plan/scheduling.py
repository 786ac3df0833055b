"""When and where a process runs, as operations: its scheduler, I/O priority, CPUs and execution domain."""

from __future__ import annotations

from struct import pack

from minibox.errors import ConfigError
from minibox.plan import operations as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.oci.runtime import ExecCPUAffinity, Linux, Process, Scheduler
    from minibox.plan.operations import Op

# linux/sched.h
POLICIES = {"SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5,
            "SCHED_DEADLINE": 6}  # fmt: skip
FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x1,
    "SCHED_FLAG_RECLAIM": 0x2,
    "SCHED_FLAG_DL_OVERRUN": 0x4,
    "SCHED_FLAG_KEEP_POLICY": 0x8,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
ATTRIBUTES = "=IIQiIQQQ"  # struct sched_attr, as of Linux 3.14: 48 bytes
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}  # linux/ioprio.h
IO_CLASS_SHIFT, IO_PRIORITIES = 13, 8
DOMAINS = {"LINUX": 0, "LINUX32": 8}  # linux/personality.h
# linux/mempolicy.h
MEMORY_MODES = {"MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3, "MPOL_LOCAL": 4,
                "MPOL_PREFERRED_MANY": 5, "MPOL_WEIGHTED_INTERLEAVE": 6}  # fmt: skip
MEMORY_FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}
NODES_MOST = 1024  # CONFIG_NODES_SHIFT
CPUS_MOST = 8192  # CONFIG_NR_CPUS


def steps_of(process: Process) -> list[Op]:
    """Return the steps of any process, while it still has the privileges for them.

    Raises:
        ConfigError: an unknown name or an invalid number.
    """
    steps = []
    if "scheduler" in process:
        steps.append(op.scheduler(_attributes(process["scheduler"]), "as requested"))
    if "ioPriority" in process:
        wanted = process["ioPriority"]
        kind, priority = wanted["class"], wanted.get("priority", 0)
        if kind not in IO_CLASSES:
            raise ConfigError(f"unknown class {kind!r} of process.ioPriority", f"one of {', '.join(IO_CLASSES)}")
        if not 0 <= priority < IO_PRIORITIES:
            raise ConfigError(f"process.ioPriority.priority {priority} is not from 0 to {IO_PRIORITIES - 1}")
        steps.append(op.io_priority(IO_CLASSES[kind] << IO_CLASS_SHIFT | priority, "the priority of its disk accesses"))
    return steps


def memory_policy_of(linux: Linux) -> list[Op]:
    """Return the step that sets the memory nodes of a container, as of config-linux.md 1.3; exec and fork inherit it.

    Raises:
        ConfigError: an unknown mode or flag, or an invalid list of nodes.
    """
    wanted = linux.get("memoryPolicy")
    if wanted is None:
        return []
    mode, flags = wanted["mode"], wanted.get("flags", [])
    if mode not in MEMORY_MODES:
        raise ConfigError(f"unknown mode {mode!r} of linux.memoryPolicy", f"one of {', '.join(MEMORY_MODES)}")
    if unknown := [flag for flag in flags if flag not in MEMORY_FLAGS]:
        raise ConfigError(f"unknown flag {unknown[0]!r} of linux.memoryPolicy", f"one of {', '.join(MEMORY_FLAGS)}")
    number = MEMORY_MODES[mode]
    for flag in flags:
        number |= MEMORY_FLAGS[flag]
    nodes = wanted.get("nodes", "")
    mask = _mask(nodes, "linux.memoryPolicy.nodes", "memory nodes", NODES_MOST) if nodes else b""
    return [op.memory_policy(number, mask, "the nodes for its memory")]


def personality_of(linux: Linux) -> list[Op]:
    """Return the step that sets the execution domain of a container.

    Raises:
        ConfigError: an unknown domain, or flags, of which the specification defines none.
    """
    wanted = linux.get("personality")
    if not wanted:
        return []
    if wanted["domain"] not in DOMAINS:
        raise ConfigError(f"unknown linux.personality.domain {wanted['domain']!r}", "LINUX or LINUX32")
    if wanted.get("flags"):
        raise ConfigError(f"linux.personality.flags contains {wanted['flags'][0]!r}, but no flag is supported")
    return [op.personality(DOMAINS[wanted["domain"]], "the machine that uname(2) reports")]


def affinity(process: Process, when: str) -> list[Op]:
    """Return the CPUs of a process that joins a container: ``initial`` before it is in its cgroup, ``final`` after.

    Raises:
        ConfigError: not a list of CPUs.
    """
    wanted: ExecCPUAffinity = process.get("execCPUAffinity", {})
    cpus = wanted.get("initial", "") if when == "initial" else wanted.get("final", "")
    why = "before it is in the container's cgroup" if when == "initial" else "in the container's cgroup"
    return [op.cpu_affinity(_mask(cpus, f"process.execCPUAffinity.{when}"), why)] if cpus else []


def _attributes(wanted: Scheduler) -> bytes:
    if wanted["policy"] not in POLICIES:
        raise ConfigError(f"unknown process.scheduler.policy {wanted['policy']!r}", f"one of {', '.join(POLICIES)}")
    flags = 0
    for name in wanted.get("flags", []):
        if name not in FLAGS:
            raise ConfigError(f"unknown flag {name!r} of process.scheduler", f"some of {', '.join(FLAGS)}")
        flags |= FLAGS[name]
    numbers = [wanted.get("nice", 0), wanted.get("priority", 0)]
    times = [wanted.get("runtime", 0), wanted.get("deadline", 0), wanted.get("period", 0)]
    if not -20 <= numbers[0] <= 19 or not all(0 <= number < 1 << 31 for number in numbers[1:]):
        raise ConfigError(f"process.scheduler has nice {numbers[0]} and priority {numbers[1]}, which is out of range")
    if not all(0 <= time < 1 << 64 for time in times):
        raise ConfigError(f"process.scheduler has a time of {min(times)} ns, which is out of range")
    return pack(ATTRIBUTES, 48, POLICIES[wanted["policy"]], flags, *numbers, *times)


def _mask(cpus: str, name: str, what: str = "CPUs", most: int = CPUS_MOST) -> bytes:
    """Return ``0-3,7`` in the kernel's format."""
    mask = 0
    for part in cpus.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal() or not int(first) <= int(last or first) < most:
            raise ConfigError(f"{name} {cpus!r} is not a list of {what}", "for example 0-3,7")
        mask |= (2 << int(last or first)) - (1 << int(first))
    return mask.to_bytes((mask.bit_length() + 63) // 64 * 8, "little")
