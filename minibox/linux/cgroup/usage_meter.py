"""Measure a container's memory, and what its processes use if no controller counts that. Off the hot path."""

from __future__ import annotations

import os

from minibox.base.files import text_of
from minibox.base.lines import lines_of
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from minibox.linux.cgroup.group import Cgroup

UNLIMITED_V1 = 1 << 62  # without a limit, v1 shows a number slightly below 2**63


@record
class ProcessUsage:
    """What processes use together, from /proc: memory without shared parts, and bytes from and to disks."""

    cpu_ns: int
    memory_bytes: int
    threads: int
    io_read_bytes: int | None
    io_write_bytes: int | None


def memory(group: Cgroup) -> tuple[int | None, int | None]:
    """Return the memory in use and its limit in bytes. Like Docker, leave out the page cache that is reclaimed first.

    None if the memory isn't counted, or if there is no limit.
    """
    directory = group.v1.get("memory")
    if directory:
        used, limit = _text(f"{directory}/memory.usage_in_bytes"), ""
        stat = _fields(f"{directory}/memory.stat")
        inactive, limit = stat.get("total_inactive_file", "0"), stat.get("hierarchical_memory_limit", "")
    else:
        used, limit = _text(f"{group.v2}/memory.current"), _text(f"{group.v2}/memory.max")
        inactive = _fields(f"{group.v2}/memory.stat").get("inactive_file", "0")
    bound = int(limit) if limit.isdigit() and int(limit) < UNLIMITED_V1 else None
    return (max(int(used) - int(inactive), 0) if used.isdigit() else None), bound


@record
class Tally:
    """How many processes or threads a container had, if a controller limits them.

    Attributes:
        peak: the most at one time; None if not counted, as before Linux 6.1.
        refused: how often the limit refused a new one.
        crowded: the container is at its limit.
    """

    peak: int | None = None
    refused: int = 0
    crowded: bool = False


def tally(group: Cgroup) -> Tally:
    """Return what the pids controller has counted."""
    directory = group.v1.get("pids", group.v2)
    if not directory or not (limit := _text(f"{directory}/pids.max")):
        return Tally()
    peak, now = _text(f"{directory}/pids.peak"), _text(f"{directory}/pids.current")
    refused = _fields(f"{directory}/pids.events").get("max", "0")
    crowded = limit.isdigit() and now.isdigit() and int(now) >= int(limit)
    return Tally(int(peak) if peak.isdigit() else None, int(refused), crowded)


def cpu_split_ns(group: Cgroup) -> tuple[int, int] | None:
    """Return the CPU time in user mode and in the kernel, in nanoseconds; None if it isn't counted."""
    if directory := group.v1.get("cpuacct"):
        user, system = _text(f"{directory}/cpuacct.usage_user"), _text(f"{directory}/cpuacct.usage_sys")
        return (int(user), int(system)) if user.isdigit() and system.isdigit() else None
    found = _fields(f"{group.v2}/cpu.stat") if group.v2 else {}
    if "user_usec" not in found:
        return None
    return int(found["user_usec"]) * 1000, int(found["system_usec"]) * 1000


def host_memory_bytes() -> int:
    """Return this machine's memory."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return int(file.readline().split()[1]) * 1024


def descendants(pid: int) -> Iterator[int]:
    """Yield a process and all its descendants; proc_pid_task_tid_children(5)."""
    waiting = [pid]
    while waiting:
        pid = waiting.pop()
        yield pid
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue  # it has ended
        for thread in threads:
            waiting += map(int, _text(f"/proc/{pid}/task/{thread}/children").split())


def processes(pids: Iterable[int]) -> ProcessUsage:
    """Return what processes use, with their reaped children: proc_pid_stat(5), proc_pid_io(5)."""
    tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
    cpu_ns = memory_bytes = threads = 0
    io_read: int | None = 0
    io_write: int | None = 0
    for pid in pids:
        fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if len(fields) < 18:
            continue  # it has just ended
        cpu_ns += sum(map(int, fields[11:15])) * tick_ns
        threads += int(fields[17])
        memory_bytes += int(_fields(f"/proc/{pid}/status").get("RssAnon:", "0")) * 1024
        read, written = process_io(pid)
        io_read = None if io_read is None or read is None else io_read + read
        io_write = None if io_write is None or written is None else io_write + written
    return ProcessUsage(cpu_ns, memory_bytes, threads, io_read, io_write)


def process_io(pid: int) -> tuple[int | None, int | None]:
    """Return the bytes that a process and its reaped children read and wrote on disks; None if we may not see that."""
    found = _fields(f"/proc/{pid}/io")
    read, written = found.get("read_bytes:"), found.get("write_bytes:")
    return (int(read), int(written)) if read and written else (None, None)


def network_bytes(pid: int) -> tuple[int, int]:
    """Return the bytes that a process's network got and sent, without loopback; 0 for the host's: proc_pid_net(5)."""
    received = sent = 0
    try:
        if os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            return 0, 0
    except OSError:
        return 0, 0
    for line in lines_of(_text(f"/proc/{pid}/net/dev"))[2:]:
        name, _, numbers = line.partition(":")
        words = numbers.split()
        if name.strip() != "lo" and len(words) >= 9:
            received, sent = received + int(words[0]), sent + int(words[8])
    return received, sent


def _fields(path: str) -> dict[str, str]:
    """Return the first two words of each line."""
    return {words[0]: words[1] for line in lines_of(_text(path)) if len(words := line.split()) > 1}


def _text(path: str) -> str:
    return text_of(path).strip()
