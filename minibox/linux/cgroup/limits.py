"""OCI `linux.resources` to the files of cgroup controllers, in v1's words and in v2's. Pure.

Sources: OCI runtime spec, config-linux.md "Control groups"; Documentation/admin-guide/cgroup-v1/*
and cgroup-v2.rst.

A setting is ``(file, value, limit, optional)``: ``limit`` names what the user asked for, for the
error; an optional one may fail, since nobody asked for it in so many words.
"""

from __future__ import annotations

from minibox.errors import LimitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Setting = tuple[str, str, str, bool]
    Compile = Callable[[Any], list[Setting]]


def cpu_weight(shares: int) -> int:
    """The v2 weight (1 to 10000, default 100) of v1 CPU shares (2 to 262144, default 1024).

    The curve of runc since 1.3.2 and crun since 1.23 (opencontainers/cgroups#20), which keeps both
    ranges and the default: the straight line before it made the default's 1024 a weight of 39.
    """
    from math import ceil, log2

    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    power = log2(shares)
    return ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))


def memory_v1(memory: dict[str, Any]) -> list[Setting]:
    """v1 counts memory and memory + swap; the order matters: the sum may not be below the memory."""
    out: list[Setting] = []
    limit, swap, explicit = _memory_and_swap(memory)
    if limit is not None:
        out.append(("memory.limit_in_bytes", str(limit), "memory limit", False))
    if swap is not None:
        out.append(("memory.memsw.limit_in_bytes", str(swap), "memory and swap limit", not explicit))
    _number(out, memory, "reservation", "memory.soft_limit_in_bytes", "memory reservation")
    _number(out, memory, "swappiness", "memory.swappiness", "memory swappiness")
    if memory.get("disableOOMKiller"):
        out.append(("memory.oom_control", "1", "out-of-memory killer off", False))
    _refuse_rest(memory, "memory", _MEMORY_KEYS)
    return out


def memory_v2(memory: dict[str, Any]) -> list[Setting]:
    """v2 counts memory and swap apart."""
    out: list[Setting] = []
    limit, swap, explicit = _memory_and_swap(memory)
    if limit is not None:
        out.append(("memory.max", _maximum(limit), "memory limit", False))
    if swap is not None:
        apart = swap if swap < 0 else swap - (limit or 0)
        out.append(("memory.swap.max", _maximum(apart), "memory and swap limit", not explicit))
    if memory.get("reservation") is not None:
        out.append(("memory.low", _maximum(memory["reservation"]), "memory reservation", False))
    for key in ("swappiness", "disableOOMKiller"):
        if memory.get(key):
            raise LimitError(f"memory {key}: cgroup v2 has nothing like it", "leave it out, or boot with cgroup v1")
    _refuse_rest(memory, "memory", _MEMORY_KEYS)
    return out


_MEMORY_KEYS = (
    *("limit", "swap", "reservation", "swappiness", "disableOOMKiller"),
    *("useHierarchy", "checkBeforeUpdate"),  # always so, and only for updates
)


def _memory_and_swap(memory: dict[str, Any]) -> tuple[int | None, int | None, bool]:
    """(memory, memory + swap, whether the second was asked for) in bytes, -1: unlimited.

    As Docker: memory without swap gives as much swap again, and 0 is the same as nothing said.
    """
    limit, swap = memory.get("limit") or None, memory.get("swap") or None
    if swap is None:
        return limit, (2 * limit if limit is not None and limit > 0 else None), False
    if swap > 0:
        if limit is None or limit < 0:
            raise LimitError("memory and swap limit: it needs a memory limit too", "add --memory")
        if swap < limit:
            raise LimitError(
                f"memory and swap limit: {swap} bytes is less than the memory limit of {limit}",
                "--memory-swap is memory and swap together: give it at least the value of --memory",
            )
    return limit, swap, True


def cpu_v1(cpu: dict[str, Any]) -> list[Setting]:
    out: list[Setting] = []
    _number(out, cpu, "shares", "cpu.shares", "CPU shares")
    _number(out, cpu, "period", "cpu.cfs_period_us", "CPU limit")
    _number(out, cpu, "quota", "cpu.cfs_quota_us", "CPU limit")
    _number(out, cpu, "burst", "cpu.cfs_burst_us", "CPU burst")
    _number(out, cpu, "realtimePeriod", "cpu.rt_period_us", "real-time CPU limit")
    _number(out, cpu, "realtimeRuntime", "cpu.rt_runtime_us", "real-time CPU limit")
    if cpu.get("idle") is not None:
        out.append(("cpu.idle", str(cpu["idle"]), "idle scheduling", False))
    _refuse_rest(cpu, "CPU", _CPU_KEYS)
    return out


def cpu_v2(cpu: dict[str, Any]) -> list[Setting]:
    out: list[Setting] = []
    if cpu.get("shares"):
        out.append(("cpu.weight", str(cpu_weight(cpu["shares"])), "CPU shares", False))
    quota, period = cpu.get("quota") or None, cpu.get("period") or None
    if quota is not None or period is not None:
        value = _maximum(-1 if quota is None else quota)
        out.append(("cpu.max", f"{value} {period}" if period else value, "CPU limit", False))
    _number(out, cpu, "burst", "cpu.max.burst", "CPU burst")
    if cpu.get("realtimePeriod") or cpu.get("realtimeRuntime"):
        raise LimitError("real-time CPU limit: cgroup v2 has nothing like it", "leave it out, or boot with cgroup v1")
    if cpu.get("idle") is not None:
        out.append(("cpu.idle", str(cpu["idle"]), "idle scheduling", False))
    _refuse_rest(cpu, "CPU", _CPU_KEYS)
    return out


_CPU_KEYS = ("shares", "quota", "period", "burst", "realtimePeriod", "realtimeRuntime", "idle", "cpus", "mems")


def cpuset(cpu: dict[str, Any]) -> list[Setting]:
    """v1 and v2 have the same two files; v1's must also be filled before a process enters (see `steps`)."""
    out: list[Setting] = []
    if cpu.get("cpus"):
        out.append(("cpuset.cpus", cpu["cpus"], "set of CPUs", False))
    if cpu.get("mems"):
        out.append(("cpuset.mems", cpu["mems"], "set of memory nodes", False))
    return out


def pids(asked: dict[str, Any]) -> list[Setting]:
    """v1 and v2 alike. A new cgroup has no limit, so "unlimited" (-1, and 0 as in Docker) needs nothing."""
    limit = asked.get("limit") or 0
    return [("pids.max", str(limit), "process limit", False)] if limit > 0 else []


def hugetlb_v1(limits: list[dict[str, Any]]) -> list[Setting]:
    return [(f"hugetlb.{x['pageSize']}.limit_in_bytes", str(x["limit"]), "huge page limit", False) for x in limits]


def hugetlb_v2(limits: list[dict[str, Any]]) -> list[Setting]:
    return [(f"hugetlb.{x['pageSize']}.max", str(x["limit"]), "huge page limit", False) for x in limits]


_THROTTLES = (  # OCI, v1, v2
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
)


def blkio_v1(block: dict[str, Any]) -> list[Setting]:
    out: list[Setting] = []
    _number(out, block, "weight", "blkio.bfq.weight", "block I/O weight")  # CFQ's blkio.weight went with Linux 5.0
    for key, name, _ in _THROTTLES:
        for x in block.get(key) or ():
            out.append((name, f"{x['major']}:{x['minor']} {x['rate']}", "block I/O limit", False))
    _refuse_rest(block, "block I/O", ("weight", *(key for key, _, _ in _THROTTLES)))
    return out


def io_v2(block: dict[str, Any]) -> list[Setting]:
    out: list[Setting] = []
    if block.get("weight"):
        # 10 to 1000 becomes 1 to 10000, as in crun and runc.
        out.append(("io.weight", str(1 + (block["weight"] - 10) * 9999 // 990), "block I/O weight", False))
    for key, _, word in _THROTTLES:
        for x in block.get(key) or ():
            out.append(("io.max", f"{x['major']}:{x['minor']} {word}={x['rate']}", "block I/O limit", False))
    _refuse_rest(block, "block I/O", ("weight", *(key for key, _, _ in _THROTTLES)))
    return out


CONTROLLERS: tuple[tuple[str, str, Compile, str, Compile], ...] = (
    # key in linux.resources, v1 controller and its settings, v2 controller and its settings
    ("memory", "memory", memory_v1, "memory", memory_v2),
    ("pids", "pids", pids, "pids", pids),
    ("cpu", "cpu", cpu_v1, "cpu", cpu_v2),
    ("cpu", "cpuset", cpuset, "cpuset", cpuset),
    ("blockIO", "blkio", blkio_v1, "io", io_v2),
    ("hugepageLimits", "hugetlb", hugetlb_v1, "hugetlb", hugetlb_v2),
)


def _maximum(value: int) -> str:
    return str(value) if value >= 0 else "max"


def _number(out: list[Setting], asked: dict[str, Any], key: str, name: str, limit: str) -> None:
    """One number to one file; 0 and absent mean that nothing was asked, as in runc and crun."""
    if asked.get(key):
        out.append((name, str(asked[key]), limit, False))


def _refuse_rest(asked: dict[str, Any], what: str, known: Iterable[str]) -> None:
    for key, value in asked.items():
        if value and key not in known:
            raise LimitError(f"{what} {key}: minibox can't set it", "leave it out of linux.resources")
