"""Measure what containers use right now: `stats`."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic_ns
from typing import Any

from minibox.base.home import Home
from minibox.engine.container import collection
from minibox.engine.state import claim, containers
from minibox.linux import cgroup
from minibox.linux.cgroup import CgroupHost, usage_meter
from minibox.record import record


@record
class Reading:
    """What one container uses. A value is None if it isn't counted, or isn't known yet.

    Attributes:
        running: whether it has a process; without one it uses nothing.
        moment_ns: when it was read, by the monotonic clock.
        cpu_ns: CPU time so far.
        cpu_percent: of one CPU, since the last reading; two busy CPUs are 200.
        memory_bytes: without the page cache that the kernel reclaims first.
        memory_limit_bytes: its own limit, or else the machine's memory.
    """

    id: str
    name: str
    running: bool = False
    moment_ns: int = 0
    cpu_ns: int | None = None
    cpu_percent: float | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    pids: int | None = None


class Meter:
    """Read repeatedly what containers use."""

    def __init__(self, home: Home, names: Sequence[str], *, everything: bool = False) -> None:
        """Find the containers.

        Args:
            names: names or ids; none means all running containers, including those started later.
            everything: include those that don't run.

        Raises:
            ContainerNotFound: there is no container of that name or id.
        """
        collection.collect(home)
        self._root, self._everything = home.root, everything
        self._ids = [containers.find_id(home.root, name) for name in names]
        self._host = cgroup.detect()
        self._host_memory_bytes = usage_meter.host_memory_bytes()
        self._before: dict[str, Reading] = {}

    def read(self) -> list[Reading]:
        """Read what each container uses, in the order of the names; newest first if there are no names."""
        found = []
        for each in self._containers():
            reading = self._read(each)
            if reading.running or self._everything or self._ids:
                found.append(reading)
        self._before = {each.id: each for each in found}
        return found

    def _containers(self) -> list[dict[str, Any]]:
        if self._ids:
            known = set(containers.container_ids(self._root))
            return [containers.read(self._root, each) for each in self._ids if each in known]
        live = set(claim.live_ids(self._root))
        ids = [each for each in containers.container_ids(self._root) if self._everything or each in live]
        return sorted(
            (containers.read(self._root, each) for each in ids), key=lambda each: -(each.get("Created") or 0.0)
        )

    def _read(self, found: dict[str, Any]) -> Reading:
        container_id, name = found["Id"], found["Name"]
        live = containers.owner(self._root, container_id)
        if not live or live.pid <= 0:
            return Reading(container_id, name, memory_limit_bytes=0)
        fields = measure(self._host, container_id, live.pid)
        fields["memory_limit_bytes"] = min(
            fields["memory_limit_bytes"] or self._host_memory_bytes, self._host_memory_bytes
        )
        fields["cpu_percent"] = cpu_percent(self._before.get(container_id), fields["cpu_ns"], fields["moment_ns"])
        return Reading(container_id, name, True, **fields)


def measure(host: CgroupHost, container_id: str, pid: int) -> dict[str, Any]:
    """The members of a `Reading` that the kernel counts: in its cgroup, and for its processes if the cgroup lacks some.

    An ordinary user's container often has no cgroup; then only its processes count.
    """
    group = cgroup.find(host, f"minibox-{container_id}")
    received, sent = usage_meter.network_bytes(pid)
    usage = group.usage()
    memory_bytes, limit = usage_meter.memory(group)
    fields: dict[str, Any] = {
        "moment_ns": monotonic_ns(), "cpu_ns": usage.cpu_ns, "pids": usage.pids,
        "memory_bytes": memory_bytes, "memory_limit_bytes": limit,
        "received_bytes": received, "sent_bytes": sent,
        "io_read_bytes": usage.io_read_bytes, "io_write_bytes": usage.io_write_bytes,
    }  # fmt: skip
    if not all(fields[key] is not None for key in ("cpu_ns", "memory_bytes", "pids", "io_read_bytes")):
        counted = usage_meter.processes(group.pids() if group.directories else usage_meter.descendants(pid))
        for key, value in (
            ("cpu_ns", counted.cpu_ns), ("memory_bytes", counted.memory_bytes), ("pids", counted.threads),
            ("io_read_bytes", counted.io_read_bytes), ("io_write_bytes", counted.io_write_bytes),
        ):  # fmt: skip
            if fields[key] is None:
                fields[key] = value
    return fields


def cpu_percent(before: Reading | None, cpu_ns: int | None, moment_ns: int) -> float | None:
    """CPU time per second since ``before``, in percent of one CPU; None without ``before``.

    A restarted container begins at 0 again.
    """
    if before is None or before.cpu_ns is None or cpu_ns is None or moment_ns <= before.moment_ns:
        return None
    return max(0.0, 100.0 * (cpu_ns - before.cpu_ns) / (moment_ns - before.moment_ns))
