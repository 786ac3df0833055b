"""Limits: memory, CPUs, processes, ``--ulimit``, ``--sysctl`` and the OOM score, checked as Docker does."""

from __future__ import annotations

import os

from minibox.errors import Unsupported, UsageError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.docker_words.devices import DeviceLimit
    from minibox.docker_words.limits import Ulimit
    from minibox.docker_words.pairs import Pair
    from minibox.engine.spec.host import HostFacts
    from minibox.engine.spec.options import RunOptions
    from minibox.oci.runtime import LinuxResources, POSIXRlimit

MEMORY_MINIMUM_BYTES = 6 << 20  # Docker's minimum: a container can't start with less
PAGE = 4096
CPU_PERIOD_US = 100_000
INFINITY = (1 << 64) - 1  # RLIM_INFINITY
_LARGEST = (1 << 63) - 1
_IPC_SYSCTLS = frozenset(
    ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
     "kernel.shmmni", "kernel.shm_rmid_forced")
)  # fmt: skip


def resources(options: RunOptions, host: HostFacts) -> LinuxResources:
    """Return ``linux.resources`` for the limits in ``options``. A limit that isn't set gets no key.

    A memory limit without ``--memory-swap`` limits memory and swap together to twice as much, as in Docker, unless the
    host can't limit swap.

    Raises:
        UsageError: an invalid limit.
    """
    result: LinuxResources = {}
    memory = options.memory_bytes
    swap = options.memory_swap_bytes
    if memory is not None and memory != 0:
        if not MEMORY_MINIMUM_BYTES <= memory <= _LARGEST:
            raise UsageError(f"memory limit of {memory} bytes is too small", hint="the minimum is 6m")
        result["memory"] = {"limit": memory}
        if swap is not None and swap != 0:
            if swap != -1 and not memory <= swap <= _LARGEST:
                raise UsageError(
                    f"memory-swap of {swap} bytes is out of range, or less than the memory limit of {memory}",
                    hint="--memory-swap is the limit of memory and swap together",
                )
            result["memory"]["swap"] = swap
        elif host.swap_limit:
            result["memory"]["swap"] = min(2 * memory, _LARGEST)
    elif swap is not None and swap > 0:
        raise UsageError("--memory-swap needs a memory limit", hint="add --memory")
    elif swap is not None and swap < -1:
        raise UsageError(f"invalid memory-swap {swap}", hint="a size, or -1 for unlimited swap")
    _reservation(options, result)
    _cpu(options, host, result)
    if weight := options.blkio_weight:
        if not 10 <= weight <= 1000:
            raise UsageError(f"invalid blkio weight {weight}", hint="from 10 to 1000")
        result["blockIO"] = {"weight": weight}
    _disks(options, host, result)
    _of_v1(options, result)
    pids = options.pids_limit
    if pids is not None:
        if pids < -1 or pids > _LARGEST:
            raise UsageError(f"invalid pids limit {pids}", hint="give a number of processes, or -1 for no limit")
        result["pids"] = {"limit": pids or -1}
    return result


def _reservation(options: RunOptions, result: LinuxResources) -> None:
    reservation, memory = options.memory_reservation_bytes, options.memory_bytes
    if not reservation:
        return
    if not MEMORY_MINIMUM_BYTES <= reservation <= _LARGEST:
        raise UsageError(f"memory reservation of {reservation} bytes is too small", hint="the minimum is 6m")
    if memory and reservation > memory:
        raise UsageError(
            f"memory reservation of {reservation} bytes is more than the memory limit of {memory}",
            hint="raise --memory",
        )
    result.setdefault("memory", {})["reservation"] = reservation


#: By option: its member of ``linux.resources.blockIO``, and what that calls the number.
_OF_DISKS = (
    ("blkio_weight_device", "weightDevice", "weight"),
    ("device_read_bps", "throttleReadBpsDevice", "rate"), ("device_write_bps", "throttleWriteBpsDevice", "rate"),
    ("device_read_iops", "throttleReadIOPSDevice", "rate"), ("device_write_iops", "throttleWriteIOPSDevice", "rate"),
)  # fmt: skip


def _disks(options: RunOptions, host: HostFacts, result: LinuxResources) -> None:
    """Limits and weights for single disks."""
    block: Any = {
        key: [{**_number_of(each, host), number: each.number} for each in limits]
        for option, key, number in _OF_DISKS
        if (limits := getattr(options, option))
    }
    if block:
        result.setdefault("blockIO", {}).update(block)


def _number_of(limit: DeviceLimit, host: HostFacts) -> dict[str, int]:
    try:
        info = host.stat(limit.path)
    except (OSError, ValueError) as error:
        said = kernel_says(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"can't look up disk {limit.path!r}: {said}", "lsblk lists disks") from error
    if info.st_mode & 0o170000 != 0o060000:
        raise UsageError(f"{limit.path} is not a disk", "lsblk lists disks")
    return {"major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev)}


def _of_v1(options: RunOptions, result: LinuxResources) -> None:
    """Limits that only cgroup v1 has; `v1_limits` takes them away where they can't be."""
    swappiness = options.memory_swappiness
    if swappiness is not None and swappiness != -1:
        if not 0 <= swappiness <= 100:
            raise UsageError(f"invalid memory swappiness {swappiness}", "from 0 to 100, or -1 for the host's")
        result.setdefault("memory", {})["swappiness"] = swappiness
    if options.oom_kill_disable:
        result.setdefault("memory", {})["disableOOMKiller"] = True
    period, runtime = options.cpu_rt_period_us or 0, options.cpu_rt_runtime_us or 0
    if runtime > (period or 1_000_000):
        raise UsageError(f"cpu-rt-runtime of {runtime} µs is more than the period", "raise --cpu-rt-period")
    if period:
        result.setdefault("cpu", {})["realtimePeriod"] = period
    if runtime:
        result.setdefault("cpu", {})["realtimeRuntime"] = runtime


def _cpu(options: RunOptions, host: HostFacts, result: LinuxResources) -> None:
    cpu = result.setdefault("cpu", {})
    quota, period = options.cpu_quota_us or 0, options.cpu_period_us or 0
    if options.cpus and (quota or period):
        raise UsageError(
            "--cpus sets a quota and a period, and can't be combined with --cpu-quota or --cpu-period",
            hint="--cpu-period 100000 --cpu-quota 150000 is --cpus 1.5",
        )
    if period:
        if not 1000 <= period <= 1_000_000:
            raise UsageError(f"invalid cpu period {period}", hint="in microseconds: from 1000 to 1000000")
        cpu["period"] = period
    if quota:
        if quota != -1 and not 1000 <= quota <= _LARGEST:
            raise UsageError(f"invalid cpu quota {quota}", hint="in microseconds: at least 1000; or -1 for no limit")
        cpu["quota"] = quota
    if options.cpus is not None and options.cpus != 0:
        if not 0.01 <= options.cpus <= host.cpus:
            raise UsageError(
                f"{options.cpus:g} CPUs are out of range",
                hint=f"give 0.01 to {host.cpus}.00: this host has {host.cpus} CPUs",
            )
        cpu["quota"] = max(1000, int(options.cpus * CPU_PERIOD_US + 0.5))
        cpu["period"] = CPU_PERIOD_US
    shares = options.cpu_shares
    if shares is not None and shares != 0:
        if not 2 <= shares <= 262144:
            raise UsageError(f"invalid cpu shares {shares}", hint="from 2 to 262144; the default is 1024")
        cpu["shares"] = shares
    if options.cpuset_cpus:
        cpu["cpus"] = _cpuset(options.cpuset_cpus)
    if options.cpuset_mems:
        cpu["mems"] = _cpuset(options.cpuset_mems)
    if not cpu:
        del result["cpu"]


def disk_bytes(options: RunOptions, driver_kind: str) -> int:
    """Check ``--disk`` and return it in bytes; 0 for no limit.

    Args:
        driver_kind: the kind of the container's snapshot, see `minibox.storage.snapshot.Snapshot`.

    Raises:
        UsageError: less than a page.
        Unsupported: the storage driver or the kernel can't do it.
    """
    size = options.disk_bytes or 0
    if not size:
        return 0
    if not PAGE <= size <= _LARGEST:
        raise UsageError(f"disk limit of {size} bytes is too small", hint="the minimum is 4k")
    if driver_kind == "tree":
        raise Unsupported(
            f"--disk {size}: this storage driver copies the whole image to the disk",
            "use --storage-driver overlay or erofs",
        )
    if os.geteuid() and not _memory_keeps_attributes():
        raise Unsupported(
            f"--disk {size}: an overlay made without root needs user attributes on tmpfs, which came with Linux 6.6",
            "run minibox as root, or limit each file: --ulimit fsize=1048576",
        )
    return size


def _memory_keeps_attributes() -> bool:
    fd = os.memfd_create("minibox")  # the kernel's own tmpfs
    try:
        os.setxattr(fd, "user.overlay.probe", b"y")
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _cpuset(text: str) -> str:
    """Check a list in the format of cpuset(7), "List format": ``0-3,7``."""
    for part in text.split(","):
        first, dash, last = part.partition("-")
        numbers = [first, last] if dash else [first]
        if not all(word.isascii() and word.isdecimal() and len(word) < 5 for word in numbers):
            raise UsageError(f"invalid cpuset {text!r}", hint="write numbers as 0-3,7")
        if dash and int(first) > int(last):
            raise UsageError(f"invalid cpuset {text!r}: {part} is not in ascending order")
    return text


def rlimits(limits: tuple[Ulimit, ...]) -> list[POSIXRlimit]:
    """Return ``process.rlimits``. The last entry of a name wins.

    Raises:
        UsageError: an unknown name, or a soft limit above the hard limit.
    """
    from minibox.docker_words.limits import NAMES, SYNTAX

    result: dict[str, POSIXRlimit] = {}
    for each in limits:
        if each.name not in NAMES:
            raise UsageError(f"invalid ulimit {str(each)!r}", hint=SYNTAX)
        soft, hard = _rlimit(each.soft, each), _rlimit(each.hard, each)
        if soft > hard:
            raise UsageError(f"invalid ulimit {str(each)!r}: the soft limit is above the hard limit")
        result[each.name] = {"type": f"RLIMIT_{each.name.upper()}", "soft": soft, "hard": hard}
    return list(result.values())


def _rlimit(value: int, whole: Ulimit) -> int:
    if value == -1:
        return INFINITY
    if not 0 <= value <= _LARGEST:
        raise UsageError(f"invalid ulimit {str(whole)!r}: '{value}' is not a limit", "a number, or -1 for unlimited")
    return value


def sysctls(given: tuple[Pair, ...], *, host_network: bool, user_namespace: bool) -> dict[str, str]:
    """Return ``linux.sysctl``: Docker's defaults, and what the user gave.

    Only sysctls of the container's own ipc or network namespace may be set; the others would change the host.

    Raises:
        UsageError: malformed, not namespaced, or ``net.*`` on the host's network.
    """
    result = {}
    if not host_network:
        # Docker since 20.10: in a network namespace of its own, a container may use ports below 1024.
        result["net.ipv4.ip_unprivileged_port_start"] = "0"
        if not user_namespace:  # in a user namespace, gid 2147483647 isn't mapped and the kernel refuses the range
            result["net.ipv4.ping_group_range"] = "0 2147483647"
    for each in given:
        name, value = each.name, each.value
        # As in sysctl(8): dots separate components, and a slash stands for a dot inside one.
        path = name.replace(".", "\0").replace("/", ".").split("\0")
        if "=" in name or "\0" in name + value or any(part in ("", ".", "..") for part in path):
            raise UsageError(
                f"invalid sysctl {str(each)!r}", hint="write name=value, for example net.core.somaxconn=1024"
            )
        if path[0] == "net":
            if host_network:
                raise UsageError(
                    f"sysctl {name!r} is not allowed on the host's network", hint="leave out --network host"
                )
        elif name not in _IPC_SYSCTLS and not (path[:2] == ["fs", "mqueue"] and len(path) > 2):
            raise UsageError(
                f"sysctl {name!r} is not allowed: it is not namespaced and would change the host",
                hint="allowed are net.*, fs.mqueue.*, kernel.msg*, kernel.sem and kernel.shm*",
            )
        result[name] = value
    return result


def oom_score_adj(value: int) -> int:
    """Check ``process.oomScoreAdj`` (proc_pid_oom_score_adj(5)) and return it.

    Raises:
        UsageError: outside -1000 to 1000.
    """
    if not -1000 <= value <= 1000:
        raise UsageError(f"invalid oom-score-adj {value}", hint="from -1000 (never killed) to 1000 (killed first)")
    return value
