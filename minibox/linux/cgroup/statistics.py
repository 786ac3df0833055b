"""What a container uses, in the format of `runc events --stats`. Off the hot path.

Sources: runc's types/events.go; cgroup-v1/memory.rst, cpuacct.rst, blkio-controller.rst; cgroup-v2.rst.
"""

from __future__ import annotations

import os

from minibox.base.files import text_of
from minibox.base.lines import lines_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minibox.linux.cgroup.group import Cgroup

UNLIMITED = (1 << 64) - 1  # runc's number for "max"


def statistics(group: Cgroup) -> dict[str, Any]:
    """Return the member ``data`` of an event of type ``stats``, with runc's fields in runc's order.

    Fields that runc leaves out if they are 0 are left out here, too. What no controller counts is 0.
    """
    v1, v2 = group.v1, group.v2
    return {
        "cpu": _cpu_v1(v1) if "cpuacct" in v1 else _cpu_v2(v2),
        "cpuset": _cpuset(v1.get("cpuset", v2)),
        "memory": _memory_v1(v1["memory"]) if "memory" in v1 else _memory_v2(v2),
        "pids": _pids(v1.get("pids", v2)),
        "blkio": _blkio_v1(v1["blkio"]) if "blkio" in v1 else _io_v2(v2),
        "hugetlb": dict(_hugetlb(v1.get("hugetlb", v2), is_v1="hugetlb" in v1)),
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _cpu_v1(v1: dict[str, str]) -> dict[str, Any]:
    directory, stat = v1["cpuacct"], _pairs(f"{v1.get('cpu', '')}/cpu.stat")
    return {
        "usage": _counted(
            {
                "total": _number(f"{directory}/cpuacct.usage"),
                "percpu": _numbers(f"{directory}/cpuacct.usage_percpu"),
                "percpu_kernel": _numbers(f"{directory}/cpuacct.usage_percpu_sys"),
                "percpu_user": _numbers(f"{directory}/cpuacct.usage_percpu_user"),
                "kernel": _number(f"{directory}/cpuacct.usage_sys"),
                "user": _number(f"{directory}/cpuacct.usage_user"),
            }
        ),
        "throttling": _throttling(stat, stat.get("throttled_time", 0)),
    }


def _cpu_v2(directory: str) -> dict[str, Any]:
    stat = _pairs(f"{directory}/cpu.stat")
    return {
        "usage": _counted(
            {
                "total": stat.get("usage_usec", 0) * 1000,
                "kernel": stat.get("system_usec", 0) * 1000,
                "user": stat.get("user_usec", 0) * 1000,
            }
        ),
        "throttling": _throttling(stat, stat.get("throttled_usec", 0) * 1000),
    }


def _throttling(stat: dict[str, int], time_ns: int) -> dict[str, Any]:
    periods, throttled = stat.get("nr_periods", 0), stat.get("nr_throttled", 0)
    return _counted({"periods": periods, "throttledPeriods": throttled, "throttledTime": time_ns})


_SHOWN = ("kernel", "user", "limit", "failcnt")


def _counted(found: dict[str, Any]) -> dict[str, Any]:
    """Remove fields that runc leaves out if they are 0 or an empty list."""
    return {key: value for key, value in found.items() if value or key in _SHOWN}


_CPUSET_FLAGS = ("memory_migrate", "memory_spread_page", "memory_spread_slab", "memory_pressure", "sched_load_balance")


def _cpuset(directory: str) -> dict[str, Any]:
    """Return the CPUs and memory nodes, and flags, which only v1 has."""

    def flag(name: str) -> int:
        text = _text(f"{directory}/cpuset.{name}")
        return int(text) if text.removeprefix("-").isdigit() else 0

    cpus, mems = _list(f"{directory}/cpuset.cpus"), _list(f"{directory}/cpuset.mems")
    return {
        **({"cpus": cpus} if cpus else {}),
        "cpu_exclusive": flag("cpu_exclusive"),
        **({"mems": mems} if mems else {}),
        "mem_hardwall": flag("mem_hardwall"),
        "mem_exclusive": flag("mem_exclusive"),
        **{name: flag(name) for name in _CPUSET_FLAGS},
        "sched_relax_domain_level": flag("sched_relax_domain_level"),
    }


def _memory_v1(directory: str) -> dict[str, Any]:
    def entry(kind: str) -> dict[str, int]:
        name = f"{directory}/memory.{kind}"
        return _counted(
            {
                "limit": _number(f"{name}limit_in_bytes"),
                "usage": _number(f"{name}usage_in_bytes"),
                "max": _number(f"{name}max_usage_in_bytes"),
                "failcnt": _number(f"{name}failcnt"),
            }
        )

    stat = _pairs(f"{directory}/memory.stat")
    kinds = (("usage", ""), ("swap", "memsw."), ("kernel", "kmem."), ("kernelTCP", "kmem.tcp."))
    return _with_cache(stat.get("cache", 0), {key: entry(kind) for key, kind in kinds}, stat)


def _with_cache(cache: int, entries: dict[str, Any], stat: dict[str, int]) -> dict[str, Any]:
    return {**({"cache": cache} if cache else {}), **entries, **({"raw": dict(sorted(stat.items()))} if stat else {})}


def _memory_v2(directory: str) -> dict[str, Any]:
    stat, events = _pairs(f"{directory}/memory.stat"), _pairs(f"{directory}/memory.events")
    used, swapped = _number(f"{directory}/memory.current"), _number(f"{directory}/memory.swap.current")
    limit, swap_limit = _number(f"{directory}/memory.max"), _number(f"{directory}/memory.swap.max")
    peak = _number(f"{directory}/memory.peak")
    both = UNLIMITED if UNLIMITED in (limit, swap_limit) else limit + swap_limit  # as v1 counts them
    entries = {
        "usage": {"limit": limit, "usage": used, "max": peak, "failcnt": events.get("max", 0)},
        "swap": {"limit": both, "usage": used + swapped, "failcnt": 0},
        "kernel": {"limit": UNLIMITED, "usage": stat.get("kernel", 0), "failcnt": 0},
        "kernelTCP": {"limit": UNLIMITED, "usage": stat.get("sock", 0), "failcnt": 0},
    }
    return _with_cache(stat.get("file", 0), {key: _counted(entry) for key, entry in entries.items()}, stat)


def _pids(directory: str) -> dict[str, int]:
    limit = _number(f"{directory}/pids.max")
    found = {"current": _number(f"{directory}/pids.current"), "limit": 0 if limit == UNLIMITED else limit}
    return {key: number for key, number in found.items() if number}


def _blkio_v1(directory: str) -> dict[str, Any]:
    """Return BFQ's counts, or those of throttling if BFQ has none, like runc."""
    found = {}
    for key, word in (("ioServiceBytesRecursive", "io_service_bytes"), ("ioServicedRecursive", "io_serviced")):
        for policy in ("bfq", "throttle"):
            lines = [line.split() for line in lines_of(_text(f"{directory}/blkio.{policy}.{word}_recursive"))]
            entries = [_entry(number, op, value) for number, op, value in (each for each in lines if len(each) == 3)]
            if entries:
                found[key] = entries
                break
    return found


def _io_v2(directory: str) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines_of(_text(f"{directory}/io.stat")):
        number, *words = line.split()
        counts = dict(word.split("=", 1) for word in words if "=" in word)
        for key, pairs in _IO_STAT.items():
            found.setdefault(key, []).extend(
                _entry(number, op, counts[word]) for word, op in pairs if counts.get(word, "").isdigit()
            )
    return {key: entries for key, entries in found.items() if entries}


_IO_STAT = {
    "ioServiceBytesRecursive": (("rbytes", "Read"), ("wbytes", "Write"), ("dbytes", "Discard")),
    "ioServicedRecursive": (("rios", "Read"), ("wios", "Write"), ("dios", "Discard")),
}


def _entry(number: str, op: str, value: str) -> dict[str, Any]:
    major, _, minor = number.partition(":")
    return {"major": int(major), "minor": int(minor), "op": op, "value": int(value)}


def _hugetlb(directory: str, *, is_v1: bool) -> Iterable[tuple[str, dict[str, int]]]:
    usage, peak = ("usage_in_bytes", "max_usage_in_bytes") if is_v1 else ("current", "")
    for entry in sorted(os.listdir(directory)) if directory and os.path.isdir(directory) else ():
        _, size, *rest = entry.split(".", 2) + [""]
        if entry.startswith("hugetlb.") and rest[0] == usage:
            name = f"{directory}/hugetlb.{size}"
            failed = _number(f"{name}.failcnt") if is_v1 else _pairs(f"{name}.events").get("max", 0)
            most = {"max": _number(f"{name}.{peak}")} if is_v1 else {}
            yield size, _counted({"usage": _number(f"{name}.{usage}"), **most, "failcnt": failed})


def _pairs(path: str) -> dict[str, int]:
    """Read a flat keyed file."""
    words = (line.split() for line in lines_of(_text(path)))
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdigit()}


def _number(path: str) -> int:
    text = _text(path)
    return UNLIMITED if text == "max" else int(text) if text.isdigit() else 0


def _numbers(path: str) -> list[int]:
    return [int(word) for word in _text(path).split()]


def _list(path: str) -> list[int]:
    """Return the numbers in a list as in cpuset(7), ``0-3,7``."""
    found: list[int] = []
    for part in filter(None, _text(path).split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _text(path: str) -> str:
    return text_of(path).strip()
