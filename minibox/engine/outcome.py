"""How a container of the calling program came to its end, and what it used: judged from what its owner saw itself."""

from __future__ import annotations

from minibox.engine import cause
from minibox.engine.symptoms import signal_name
from minibox.engine.verdict import RUNNING, Verdict
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.cause import Facts


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


def judge_end(container_id: str, name: str, facts: Facts | None, usage: Usage) -> Verdict:
    """The verdict on an end; on a container that runs when ``facts`` is None."""
    if facts is None:
        return Verdict(container_id, name, RUNNING, f"it has run for {cause.span(usage.wall_s)}", ran_s=usage.wall_s)
    found = cause.by_limit(facts) or cause.by_signal(facts) or cause.by_itself(facts)
    return Verdict(
        container_id,
        name,
        found.kind,
        found.summary,
        status=facts.status,
        signal=signal_name(facts.signal) if facts.signal else "",
        sender=found.sender,
        ran_s=usage.wall_s,
        evidence=tuple(cause.evidence(facts, found.kind)),
        log=facts.log,
        hint=found.hint,
    )
