"""What a container has used, and which limits it ran into: by its cgroup, and by its own layer where that is limited."""

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
class Measured:
    """
    Attributes:
        memory_peak_bytes, cpu_ns: as its cgroup has counted; None where that doesn't.
        oom_kills: how many of its processes the kernel has killed for want of memory.
        tally: of its processes; None where nobody has looked.
        cpu_parts_s: of its processor time, those in programs and in the kernel; None where nobody has counted.
        disk_bytes: what it holds of its own layer, where that is limited; else None.
        disk_full: there is no space, or no file, left in that.
        oom_ended: its first process was one of those that the kernel has killed; None where nobody knows.
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
        """How many more processes it wanted than it may have."""
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
        """For the judgement of an end.

        Args:
            code: of the first process, as `Child.wait`.
            relayed: as of `cause.ended_by`.
            oom_kills_before: how many there were when a signal was sent that has ended it; -1: none was.
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
        """For state.json; `engine.report.why` reads it."""
        return {
            "OOMKilled": self.oom_kills > 0,
            "OOMKills": self.oom_kills,
            **({} if self.oom_ended is None else {"OOMEnded": self.oom_ended}),
            "MemoryPeak": self.memory_peak_bytes,
            "CpuTime": self.cpu_s,
            "Refused": self.refused,
            "DiskFull": self.disk_full,
        }

    def since(self, before: Measured) -> Measured:
        """What of it one command has run into, that began when ``before`` was measured."""
        count = self.refused - before.refused
        tally = replace(self.tally, refused=count) if self.tally else None
        kills = self.oom_kills - before.oom_kills
        return replace(self, memory_peak_bytes=None, cpu_ns=None, oom_kills=kills, oom_ended=None, tally=tally)


def measure(execution: Execution, *, thoroughly: bool) -> Measured:
    """Look now; the container may have ended, but not been closed.

    Args:
        thoroughly: at processes and the parts of processor time, too.
    """
    disk_bytes, full = _disk(execution.disk_fd)
    found = measure_group(execution.cgroup, thoroughly=thoroughly) if execution.cgroup else Measured()
    return replace(found, disk_bytes=disk_bytes, disk_full=full)


def seen_to_its_end(found: Measured, pid: int, ran_s: float, options: Mapping[str, Any]) -> Measured:
    """With what is known of the end of a container's first process, ``pid``.

    Args:
        ran_s: for how long it ran.
        options: it was run with: behind an init it was another process that mattered.
    """
    if not found.oom_kills or options.get("init"):
        return found
    from minibox.engine.verdict.oom_log import was_killed

    return replace(found, oom_ended=was_killed(pid, ran_s))


def measure_group(group: Cgroup, *, thoroughly: bool) -> Measured:
    """The same of what its cgroup knows."""
    counted = group.memory_peak_bytes(), group.cpu_ns(), group.oom_kills()
    if not thoroughly:
        return Measured(*counted)
    from minibox.linux.cgroup.usage_meter import cpu_split_ns, tally

    parts = cpu_split_ns(group)
    split = (parts[0] / NS_A_SECOND, parts[1] / NS_A_SECOND) if parts else (None, None)
    return Measured(*counted, tally(group), split)


def _disk(fd: int) -> tuple[int | None, bool]:
    if fd < 0:
        return None, False
    found = os.fstatvfs(fd)
    return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_bfree == 0 or found.f_ffree == 0
