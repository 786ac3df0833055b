"""Turn OCI `linux.resources` into values for the files of cgroup controllers, v1's and v2's. Pure.

Sources: OCI runtime spec, config-linux.md "Control groups"; Documentation/admin-guide/cgroup-v1/*
and cgroup-v2.rst.
"""

from __future__ import annotations

from minibox.errors import LimitError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Compile = Callable[[Any], list["Setting"]]


@record
class Setting:
    """A value for a file.

    Attributes:
        limit: the limit that the user asked for, for the error.
        optional: it may fail, because nobody asked for it explicitly.
        other: the file and value for kernels without ``file``; two empty strings if there is none.
    """

    file: str
    value: str
    limit: str
    optional: bool = False
    other: tuple[str, str] = ("", "")


def cpu_weight(shares: int) -> int:
    """Convert v1 CPU shares (2 to 262144, default 1024) to a v2 weight (1 to 10000, default 100).

    This is the curve of runc since 1.3.2 and crun since 1.23 (opencontainers/cgroups#20), which maps both ranges and
    the defaults to each other. The straight line before it turned the default of 1024 into a weight of 39.
    """
    from math import ceil, log2

    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    power = log2(shares)
    return ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))


SWAP = "memory and swap limit"


def memory_v1(memory: dict[str, Any]) -> list[Setting]:
    """Return v1's settings, which are for memory and memory + swap. The order matters: the sum may not be smaller."""
    out: list[Setting] = []
    limit, swap, explicit = _memory_and_swap(memory)
    if limit is not None:
        out.append(Setting("memory.limit_in_bytes", str(limit), "memory limit"))
    if swap is not None:
        out.append(Setting("memory.memsw.limit_in_bytes", str(swap), SWAP, not explicit))
    _number(out, memory, "reservation", "memory.soft_limit_in_bytes", "memory reservation")
    _number(out, memory, "kernelTCP", "memory.kmem.tcp.limit_in_bytes", "limit of TCP buffers")
    if memory.get("swappiness") is not None:  # 0 is a value
        out.append(Setting("memory.swappiness", str(memory["swappiness"]), "memory swappiness"))
    if memory.get("disableOOMKiller"):
        out.append(Setting("memory.oom_control", "1", "out-of-memory killer off"))
    _refuse_rest(memory, "memory", _MEMORY_KEYS)
    return out


def memory_v2(memory: dict[str, Any]) -> list[Setting]:
    """Return the settings of v2, which counts memory and swap separately."""
    out: list[Setting] = []
    limit, swap, explicit = _memory_and_swap(memory)
    if limit is not None:
        out.append(Setting("memory.max", _maximum(limit), "memory limit"))
    if swap is not None:
        apart = swap if swap < 0 else swap - (limit or 0)
        out.append(Setting("memory.swap.max", _maximum(apart), SWAP, not explicit))
    if memory.get("reservation") is not None:
        out.append(Setting("memory.low", _maximum(memory["reservation"]), "memory reservation"))
    for key in ("disableOOMKiller", "kernelTCP", "swappiness"):
        if memory.get(key):
            raise _v1_only(f"memory {key}")
    _refuse_rest(memory, "memory", _MEMORY_KEYS)
    return out


_MEMORY_KEYS = (
    *("limit", "swap", "reservation", "swappiness", "disableOOMKiller", "kernelTCP"),
    "kernel",  # the specification advises against it, and it does nothing since Linux 5.16
    *("useHierarchy", "checkBeforeUpdate"),  # the first is always on, the second only for updates
)


def _memory_and_swap(memory: dict[str, Any]) -> tuple[int | None, int | None, bool]:
    """Return (memory, memory + swap, whether the second was given) in bytes; -1 means unlimited.

    As in Docker, a memory limit without a swap limit allows as much swap again, and 0 means no limit was given.
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
    if cpu.get("burst") is not None:
        out.append(Setting("cpu.cfs_burst_us", str(cpu["burst"]), "CPU burst"))
    _number(out, cpu, "realtimePeriod", "cpu.rt_period_us", "real-time CPU limit")
    _number(out, cpu, "realtimeRuntime", "cpu.rt_runtime_us", "real-time CPU limit")
    _refuse_rest(cpu, "CPU", _CPU_KEYS)
    return _with_idle(out, cpu)


def cpu_v2(cpu: dict[str, Any]) -> list[Setting]:
    out: list[Setting] = []
    if cpu.get("shares"):
        out.append(Setting("cpu.weight", str(cpu_weight(cpu["shares"])), "CPU shares"))
    quota, period = cpu.get("quota") or None, cpu.get("period") or None
    if quota is not None or period is not None:
        value = _maximum(-1 if quota is None else quota)
        out.append(Setting("cpu.max", f"{value} {period}" if period else value, "CPU limit"))
    if cpu.get("burst") is not None:
        out.append(Setting("cpu.max.burst", str(cpu["burst"]), "CPU burst"))
    if cpu.get("realtimePeriod") or cpu.get("realtimeRuntime"):
        raise _v1_only("real-time CPU limit")
    _refuse_rest(cpu, "CPU", _CPU_KEYS)
    return _with_idle(out, cpu)


def _with_idle(settings: list[Setting], cpu: dict[str, Any]) -> list[Setting]:
    """Add cpu.idle. The weight of an idle cgroup can't be changed, so leave idle first, or enter it last."""
    if cpu.get("idle") is None:
        return settings
    idle = Setting("cpu.idle", str(cpu["idle"]), "idle scheduling")
    return [*settings, idle] if cpu["idle"] else [idle, *settings]


_CPU_KEYS = ("shares", "quota", "period", "burst", "realtimePeriod", "realtimeRuntime", "idle", "cpus", "mems")


def cpuset(cpu: dict[str, Any]) -> list[Setting]:
    """Return the settings of cpuset: v1 and v2 have the same files, but v1's must be set before a process enters."""
    out: list[Setting] = []
    if cpu.get("cpus"):
        out.append(Setting("cpuset.cpus", cpu["cpus"], "set of CPUs"))
    if cpu.get("mems"):
        out.append(Setting("cpuset.mems", cpu["mems"], "set of memory nodes"))
    return out


def pids(asked: dict[str, Any]) -> list[Setting]:
    """Return the setting for v1 and v2; none for "unlimited" (-1, or 0 as in Docker), the default of a new cgroup."""
    limit = asked.get("limit") or 0
    return [Setting("pids.max", str(limit), "process limit")] if limit > 0 else []


def hugetlb_v1(limits: list[dict[str, Any]]) -> list[Setting]:
    return _hugetlb(limits, "limit_in_bytes")


def hugetlb_v2(limits: list[dict[str, Any]]) -> list[Setting]:
    return _hugetlb(limits, "max")


def _hugetlb(limits: list[dict[str, Any]], file: str) -> list[Setting]:
    """Limit pages in use, and reserved ones (Linux 5.7), so that mmap(2) fails and not a later access."""
    out = []
    for asked in limits:
        name, value = f"hugetlb.{asked['pageSize']}", str(asked["limit"])
        out.append(Setting(f"{name}.{file}", value, "huge page limit"))
        out.append(Setting(f"{name}.rsvd.{file}", value, "huge page limit", optional=True))
    return out


def network_classes(network: dict[str, Any]) -> list[Setting]:
    out: list[Setting] = []
    _number(out, network, "classID", "net_cls.classid", "network class")
    _refuse_rest(network, "network", ("classID", "priorities"))
    return out


def network_priorities(network: dict[str, Any]) -> list[Setting]:
    """Return one setting per priority, since a write takes only one. Names are from minibox's network namespace."""
    return [
        Setting("net_prio.ifpriomap", f"{x['name']} {x['priority']}", "network priority")
        for x in network.get("priorities") or ()
    ]


def rdma(devices: dict[str, dict[str, Any]]) -> list[Setting]:
    """Return the settings, which are the same for v1 and v2."""
    out: list[Setting] = []
    for device, asked in devices.items():
        words = [
            f"{word}={asked[key]}"
            for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
            if asked.get(key) is not None
        ]
        if words:
            out.append(Setting("rdma.max", " ".join((device, *words)), "RDMA limit"))
    return out


_THROTTLES = (  # OCI, v1, v2
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
)


_WEIGHT = "block I/O weight"


def blkio_v1(block: dict[str, Any]) -> list[Setting]:
    """Use BFQ's weights. CFQ, which had other names and leaf weights, was removed in Linux 5.0."""
    out: list[Setting] = []
    if block.get("weight"):
        out.append(_either("blkio.bfq.weight", "blkio.weight", str(block["weight"])))
    _number(out, block, "leafWeight", "blkio.leaf_weight", _WEIGHT)
    for x in block.get("weightDevice") or ():
        number = f"{x['major']}:{x['minor']}"
        if x.get("weight"):
            out.append(_either("blkio.bfq.weight_device", "blkio.weight_device", f"{number} {x['weight']}"))
        if x.get("leafWeight"):
            out.append(Setting("blkio.leaf_weight_device", f"{number} {x['leafWeight']}", _WEIGHT))
    for key, name, _ in _THROTTLES:
        for x in block.get(key) or ():
            out.append(Setting(name, f"{x['major']}:{x['minor']} {x['rate']}", "block I/O limit"))
    _refuse_rest(block, "block I/O", _BLOCK_KEYS)
    return out


def io_v2(block: dict[str, Any]) -> list[Setting]:
    """Use BFQ's weights, 1 to 1000 as in OCI, or those of io.cost if there is no BFQ."""
    out: list[Setting] = []
    if block.get("weight"):
        weight = block["weight"]
        out.append(Setting("io.bfq.weight", str(weight), _WEIGHT, False, ("io.weight", str(io_weight(weight)))))
    for x in block.get("weightDevice") or ():
        number, weight = f"{x['major']}:{x['minor']}", x.get("weight")
        if x.get("leafWeight"):
            raise _v1_only("block I/O leafWeight")
        if weight:
            other = ("io.weight", f"{number} {io_weight(weight)}")
            out.append(Setting("io.bfq.weight", f"{number} {weight}", _WEIGHT, False, other))
    if block.get("leafWeight"):
        raise _v1_only("block I/O leafWeight")
    for key, _, word in _THROTTLES:
        for x in block.get(key) or ():
            out.append(Setting("io.max", f"{x['major']}:{x['minor']} {word}={x['rate'] or 'max'}", "block I/O limit"))
    _refuse_rest(block, "block I/O", _BLOCK_KEYS)
    return out


_BLOCK_KEYS = ("weight", "leafWeight", "weightDevice", *(key for key, _, _ in _THROTTLES))


def io_weight(weight: int) -> int:
    """Convert 10 to 1000 to 1 to 10000, like crun and runc."""
    return 1 + (weight - 10) * 9999 // 990


def _either(bfq: str, cfq: str, value: str) -> Setting:
    return Setting(bfq, value, _WEIGHT, False, (cfq, value))


CONTROLLERS: tuple[tuple[str, str, Compile, str, Compile], ...] = (
    # key in linux.resources, v1 controller and its settings, v2 controller and its settings
    ("memory", "memory", memory_v1, "memory", memory_v2),
    ("pids", "pids", pids, "pids", pids),
    ("cpu", "cpu", cpu_v1, "cpu", cpu_v2),
    ("cpu", "cpuset", cpuset, "cpuset", cpuset),
    ("blockIO", "blkio", blkio_v1, "io", io_v2),
    ("hugepageLimits", "hugetlb", hugetlb_v1, "hugetlb", hugetlb_v2),
    ("network", "net_cls", network_classes, "net_cls", network_classes),  # only on v1
    ("network", "net_prio", network_priorities, "net_prio", network_priorities),
    ("rdma", "rdma", rdma, "rdma", rdma),
)


def _v1_only(limit: str) -> LimitError:
    return LimitError(f"{limit}: cgroup v2 has nothing like it", "leave it out, or boot with cgroup v1")


def _maximum(value: int) -> str:
    return str(value) if value >= 0 else "max"


def _number(out: list[Setting], asked: dict[str, Any], key: str, name: str, limit: str) -> None:
    """Add a setting for a number. As in runc and crun, 0 and absent mean that there is no limit."""
    if asked.get(key):
        out.append(Setting(name, str(asked[key]), limit))


def _refuse_rest(asked: dict[str, Any], what: str, known: Iterable[str]) -> None:
    for key, value in asked.items():
        if value and key not in known:
            raise LimitError(f"{what} {key}: minibox can't set it", "leave it out of linux.resources")
