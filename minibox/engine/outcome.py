"""How a container of the calling program came to its end, and what it used: judged from what its owner saw itself."""

from __future__ import annotations

from minibox.engine.symptoms import CRASHES, signal_name, status_words
from minibox.engine.verdict import CRASHED, EXITED, OUT_OF_MEMORY, RUNNING, SIGNAL, TIMEOUT, Verdict
from minibox.record import record

SIGKILL = 9


@record
class Usage:
    """What a command used; None for what nobody has counted.

    Attributes:
        wall_s: from its start to its end, in seconds.
        cpu_s: of processors, by all of its processes, in seconds.
        memory_peak_bytes: the most memory that they had at one time.
        processes: the most of them, or threads, at one time.
        written_bytes: to disks.
    """

    wall_s: float
    cpu_s: float | None = None
    memory_peak_bytes: int | None = None
    processes: int | None = None
    written_bytes: int | None = None


@record
class End:
    """What its owner saw of an end.

    Attributes:
        id, name: the container's.
        returncode: the exit status, or the negative number of the signal; None while it runs.
        oom_killed: the kernel killed a process of it that ran out of memory.
        memory_limit_bytes: None for none.
        timeout_s: it was killed since it had run so long; None: it wasn't.
    """

    id: str
    name: str
    returncode: int | None
    usage: Usage
    oom_killed: bool = False
    memory_limit_bytes: int | None = None
    timeout_s: float | None = None


def judge_end(end: End) -> Verdict:
    """The verdict on an end."""
    code = end.returncode
    if code is None:
        return Verdict(end.id, end.name, RUNNING, f"it has run for {end.usage.wall_s:.2g} s", ran_s=end.usage.wall_s)
    kind, summary, hint = _cause(end, code)
    return Verdict(
        end.id,
        end.name,
        kind,
        summary,
        status=code if code >= 0 else 128 - code,
        signal=signal_name(-code) if code < 0 else "",
        ran_s=end.usage.wall_s,
        hint=hint,
    )


def _cause(end: End, code: int) -> tuple[str, str, str]:
    """Kind, summary and hint."""
    if end.timeout_s is not None:
        return TIMEOUT, f"its time was over: it was killed after {end.timeout_s:g} s", ""
    if end.oom_killed and code:
        limit = end.memory_limit_bytes
        whose = f"its limit of {limit} bytes" if limit else "the machine's memory"
        who = "it" if code == -SIGKILL else "a process of it"
        return OUT_OF_MEMORY, f"the kernel killed {who}: {whose} was used up", ""
    if code < 0:
        name = signal_name(-code)
        if -code in CRASHES:
            what, hint = CRASHES[-code]
            return CRASHED, f"it crashed by {name}: {what}", hint
        return SIGNAL, f"{name} ended it", ""
    meaning = status_words(code)
    return EXITED, f"it ended by itself, with exit status {code}" + (f": {meaning}" if meaning else ""), ""
