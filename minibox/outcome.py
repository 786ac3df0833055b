"""How a command came to its end and what it used: the records that errors and results carry."""

from __future__ import annotations

from minibox.record import record


@record
class Usage:
    """What a command used; None for what nobody has counted.

    Attributes:
        wall_s: from its start to its end, in seconds.
        cpu_s: of processors, in seconds: of a container by all of its processes, as its cgroup has counted. Where there is
            none, and of one command of a sandbox: by its process and all that it has waited for.
        user_s, system_s: the parts of ``cpu_s`` in programs and in the kernel.
        memory_peak_bytes: the most memory that they had at one time, with the page cache and what is in a tmpfs of
            theirs; in those two cases the most that one of them had.
        processes: the most of them, threads included, at one time: where they were limited, and on Linux 6.1.
        written_bytes: what its files, other than those of volumes and of a tmpfs, hold at the end more than the image's,
            and what it wrote to its standard streams, where those were limited. What it has removed again isn't in it.
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
    """How a container ended, or that it has not.

    Attributes:
        id, name: the container's.
        kind: one of `minibox.engine.ends`: `STOPPED`, `EXITED`, `OUT_OF_MEMORY`, ...
        summary: one sentence.
        status: the exit status; None while it runs, or when it never ran.
        signal: the name of the signal that ended it; "" for none.
        sender: who sent it, where that is known.
        ran_s: for how long it ran, or has run up to now; None when it never did, or nobody knows.
        evidence: what speaks for it, a sentence each.
        log: what it wrote last to standard error, or else to standard output.
        hint: what the user can do; "" for nothing that we know of.
    """

    id: str
    name: str
    kind: str
    summary: str
    status: int | None = None
    signal: str = ""
    sender: str = ""
    ran_s: float | None = None
    evidence: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    hint: str = ""
