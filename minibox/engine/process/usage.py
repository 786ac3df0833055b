"""Measure what a container used and which limits it ran into, from its cgroup and its layer's size limit."""

from __future__ import annotations

import os

from minibox.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from minibox.engine.process.execution import Execution
    from minibox.engine.verdict.cause import Facts
    from minibox.linux.cgroup.group import Cgroup
    from minibox.linux.cgroup.usage_meter import Tally

NS_A_SECOND = 1e9


@record
class Measurement:
    """One measurement of a container.

    Attributes:
        memory_peak_bytes, cpu_ns: as counted by its cgroup; None if it doesn't count them.
        oom_kills: how many of its processes the kernel killed because memory ran out.
        tally: its processes; None if not measured.
        cpu_parts_s: its processor time in user mode and in the kernel; None if not measured.
        disk_bytes: the size of its own layer if that is limited, else None.
        disk_full: no space or no inodes are left in that layer.
        oom_ended: its first process was one of those that the kernel killed; None if unknown.
    """

    memory_peak_bytes: int | None = None
    cpu_ns: int | None = None
    oom_kills: int = 0
    tally: Tally | None = None
    cpu_parts_s: tuple[float | None, float | None] = (None, None)
    disk_bytes: int | None = None
    disk_full: bool = False
    oom_ended: bool | None = None

    @property
    def cpu_s(self) -> float | None:
        return None if self.cpu_ns is None else self.cpu_ns / NS_A_SECOND

    @property
    def refused(self) -> int:
        """How often the kernel refused it a new process."""
        return self.tally.refused if self.tally else 0

    def facts(
        self,
        code: int,
        options: Mapping[str, Any],
        *,
        relayed: int | None,
        ended_for: str,
        crowded: bool,
        log: tuple[str, ...],
        oom_kills_before: int = -1,
    ) -> Facts:
        """The facts to judge the end by.

        Args:
            code: of the first process, as returned by `Child.wait`.
            relayed: as in `cause.ended_by`.
            oom_kills_before: ``oom_kills`` when the signal was sent that ended it; -1 for no signal.
        """
        from minibox.engine.verdict.cause import Facts, ended_by

        status = code if code >= 0 else 128 - code
        signal = ended_by(status, max(0, -code), options, relayed)
        return Facts(
            status=status,
            signal=signal,
            options=options,
            ended_for=ended_for,
            oom_killed=self.oom_kills > 0,
            oom_ended=False if self.oom_kills == oom_kills_before else self.oom_ended,
            oom_survived=self.oom_kills == oom_kills_before,
            relayed=bool(signal) and code >= 0,
            memory_peak_bytes=self.memory_peak_bytes,
            cpu_s=self.cpu_s,
            refused=self.refused,
            crowded=crowded,
            disk_full=self.disk_full,
            log=log,
        )

    def record(self) -> dict[str, Any]:
        """The members for state.json, which `engine.report.why` reads."""
        return {
            "OOMKilled": self.oom_kills > 0,
            "OOMKills": self.oom_kills,
            **({} if self.oom_ended is None else {"OOMEnded": self.oom_ended}),
            "MemoryPeak": self.memory_peak_bytes,
            "CpuTime": self.cpu_s,
            "Refused": self.refused,
            "DiskFull": self.disk_full,
        }

    def since(self, before: Measurement) -> Measurement:
        """The limits that a command ran into that started when ``before`` was measured."""
        count = self.refused - before.refused
        tally = replace(self.tally, refused=count) if self.tally else None
        kills = self.oom_kills - before.oom_kills
        return replace(self, memory_peak_bytes=None, cpu_ns=None, oom_kills=kills, oom_ended=None, tally=tally)


def measure(execution: Execution, *, thoroughly: bool) -> Measurement:
    """Measure now. The container may have ended, but its execution must not be closed.

    Args:
        thoroughly: measure processes and the parts of processor time, too.
    """
    disk_bytes, full = _disk(execution.disk_fd)
    found = measure_group(execution.cgroup, thoroughly=thoroughly) if execution.cgroup else Measurement()
    return replace(found, disk_bytes=disk_bytes, disk_full=full)


def with_oom_end(found: Measurement, pid: int, ran_s: float, options: Mapping[str, Any]) -> Measurement:
    """Add ``oom_ended`` to a measurement, after the first process has ended.

    Args:
        pid: of the first process.
        ran_s: how long it ran.
        options: the options it was run with. With ``init`` the first process isn't the command, so we can't tell.
    """
    if not found.oom_kills or options.get("init"):
        return found
    from minibox.engine.verdict.oom_log import was_killed

    return replace(found, oom_ended=was_killed(pid, ran_s))


def measure_group(group: Cgroup, *, thoroughly: bool) -> Measurement:
    """Measure a cgroup."""
    counted = group.memory_peak_bytes(), group.cpu_ns(), group.oom_kills()
    if not thoroughly:
        return Measurement(*counted)
    from minibox.linux.cgroup.usage_meter import cpu_split_ns, tally

    parts = cpu_split_ns(group)
    split = (parts[0] / NS_A_SECOND, parts[1] / NS_A_SECOND) if parts else (None, None)
    return Measurement(*counted, tally(group), split)


def _disk(fd: int) -> tuple[int | None, bool]:
    if fd < 0:
        return None, False
    found = os.fstatvfs(fd)
    return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_bfree == 0 or found.f_ffree == 0
