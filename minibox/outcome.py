"""`Verdict`, how a command ended, and `Usage`, what it used: the records in results and errors."""

from __future__ import annotations

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    #: The constants of `minibox.engine.verdict.end_kinds`, which a test compares.
    Kind = Literal[
        "exited", "signal", "crashed", "out-of-memory", "cpu-time", "wall-time", "processes", "output", "file-size", "disk",
        "running", "paused", "restarting", "created", "not-started", "stopped", "killed", "unhealthy", "owner-killed",
        "damaged",
    ]  # fmt: skip


@record
class Usage:
    """The resources that a command used; None for a value that wasn't measured.

    For a container, its cgroup counts all processes. Without a cgroup, and for a single command in a sandbox, only the
    command's process and the children that it has waited for are counted.

    Attributes:
        wall_s: time from start to end, in seconds.
        cpu_s: CPU time, in seconds.
        user_s, system_s: the parts of ``cpu_s`` spent in programs and in the kernel.
        memory_peak_bytes: the peak memory usage, including page cache and tmpfs. Without a cgroup, and for a single
            command in a sandbox, that of the largest process.
        processes: the peak number of processes and threads; only if they were limited, and from Linux 6.1 on.
        written_bytes: how much larger its files are at the end than the image's, without volumes and tmpfs; plus
            its output, if that was limited. Files that it has removed don't count.
    """

    wall_s: float
    cpu_s: float | None = None
    memory_peak_bytes: int | None = None
    processes: int | None = None
    written_bytes: int | None = None
    user_s: float | None = None
    system_s: float | None = None


@record
class Verdict:
    """How a container ended, or that it hasn't ended.

    Attributes:
        id, name: the container's id and name.
        kind: such as ``"stopped"``, ``"exited"`` or ``"out-of-memory"``: a type checker knows all of them.
        summary: one sentence.
        status: the exit status; None while it runs, or if it never ran.
        signal: the name of the signal that ended it, or "".
        sender: who sent the signal, if known.
        ran_s: how long it ran, or has run so far, in seconds; None if it never ran, or if that is unknown.
        evidence: the reasons for this verdict, a sentence each.
        log: its last lines on standard error, or if there are none, on standard output.
        hint: what the user can do, or "".
    """

    id: str
    name: str
    kind: Kind
    summary: str
    status: int | None = None
    signal: str = ""
    sender: str = ""
    ran_s: float | None = None
    evidence: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    hint: str = ""
