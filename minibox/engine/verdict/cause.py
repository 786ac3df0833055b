"""Why a container ended: one judgement, for `minibox why`, which reads what is on record, and for the API, which was there.

A program that ran into a limit and coped with it has ended by itself: then the limit is evidence, and no cause.
"""

from __future__ import annotations

from minibox.base.sizes import size_words
from minibox.engine.verdict.end_kinds import (
    CPU_TIME,
    CRASHED,
    DISK,
    EXITED,
    FILE_SIZE,
    OUT_OF_MEMORY,
    OUTPUT,
    PROCESSES,
    SIGNAL,
    WALL_TIME,
)
from minibox.engine.verdict.failure_hints import CRASHES, advice, signal_name, status_words
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SIGKILL, SIGXCPU, SIGXFSZ, LAST_SIGNAL = 9, 24, 25, 64
MIB = 1 << 20
#: RLIMIT_CPU is counted by ticks, which on a busy machine came to 1 s after 0.77 s of the cgroup's exact clock.
CLOCKS_DIFFER = 0.5


#: Members of `RunOptions` that say something of an end.
OPTIONS = ("memory_bytes", "pids_limit", "timeout_s", "cpu_time_s", "output_bytes", "disk_bytes", "ulimit", "init")


@record
class Facts:
    """What is known of an end.

    Attributes:
        status: the exit status, as a shell has it.
        signal: the one that ended it; 0 for none.
        options: it was run with, `OPTIONS` or more, as `options.given` has them.
        ended_for: the limit for which minibox killed it: `CPU_TIME`, `WALL_TIME` or `OUTPUT` of `ends`; "" for none.
        relayed: it is an init that tells how its command has ended.
        oom_killed: the kernel killed a process of it that ran out of memory.
        oom_ended: that was its first one; None where nobody knows.
        oom_survived: and none since a signal was sent that has ended it.
        memory_peak_bytes, cpu_s: what it used; None where nobody has counted.
        refused: how many more processes it wanted than it may have.
        crowded: when minibox killed it, it had as many as it may.
        disk_full: in the end there was no space or no file left of its ``--disk``.
        log_lost: its log took no more, as on a full disk: nor may the note of a signal that minibox has sent.
        log: what it wrote last.
    """

    status: int
    signal: int = 0
    options: Mapping[str, Any] = {}
    ended_for: str = ""
    relayed: bool = False
    oom_killed: bool = False
    oom_ended: bool | None = None
    oom_survived: bool = False
    memory_peak_bytes: int | None = None
    cpu_s: float | None = None
    refused: int = 0
    crowded: bool = False
    disk_full: bool = False
    log_lost: bool = False
    log: tuple[str, ...] = ()

    def is_end_of(self, number: int) -> bool:
        """Did it end of that signal, or by a shell that says so of its last command?"""
        return number in (self.signal, self.status - 128)

    def ulimit(self, name: str) -> int | None:
        """The hard limit of ``--ulimit``; None for none."""
        words = [word.partition("=")[2] for word in self.options.get("ulimit") or () if word.startswith(f"{name}=")]
        hard = words[-1].rpartition(":")[2] if words else ""
        return int(hard) if hard.isdecimal() else None


def ended_by(status: int, signal: int, options: Mapping[str, Any], relayed: int | None) -> int:
    """The signal that ended a container's command; an init that it has (``--init``) exits as a shell does.

    Args:
        relayed: the signal of which the first process has said so; 0 for none, None where nobody has asked it. Without
            an init that is the command itself, which may say anything.
    """
    if not options.get("init"):
        return signal
    if relayed is None:
        relayed = status - 128 if 0 < status - 128 <= LAST_SIGNAL else 0
    return signal or relayed


@record
class Cause:
    """Why it ended: a kind, one sentence, who did it, and what the user can do."""

    kind: str
    summary: str
    sender: str = ""
    hint: str = ""


def by_limit(facts: Facts) -> Cause | None:
    """The limit that ended it: minibox or the kernel killed it for that, for certain or as far as anybody can know."""
    options, kind = facts.options, facts.ended_for
    if kind in (CPU_TIME, WALL_TIME) and facts.crowded and facts.refused:
        # It never coped: so this is what a fork bomb comes to.
        return _processes(facts, f", and its {kind.replace('-', ' ')} was over")
    if kind == WALL_TIME:
        limit = span(float(options.get("timeout_s") or 0))
        return Cause(kind, f"its time was over: it was killed after {limit} (--timeout)", "minibox")
    if kind == CPU_TIME:
        limit = span(float(options.get("cpu_time_s") or 0))
        return Cause(kind, f"it was killed, since its processes have used {limit} of processor time", "minibox")
    if kind == OUTPUT:
        limit = size_words(int(options.get("output_bytes") or 0))
        return Cause(kind, f"it was killed, since it has written more than {limit} of output", "minibox")
    return _memory(facts) if _ran_out_of_memory(facts) else None


def _ran_out_of_memory(facts: Facts) -> bool:
    """Was that its end? It may have coped before, and have been killed by somebody else."""
    if not facts.oom_killed or not facts.status or facts.oom_survived:
        return False
    return not facts.signal or (facts.signal == SIGKILL and facts.oom_ended is not False)


def _memory(facts: Facts) -> Cause:
    limit, first = facts.options.get("memory_bytes"), facts.signal == SIGKILL
    whose = "its limit of " + size_words(limit) if limit else "the machine's memory"
    hint = f"give it more: --memory {2 * limit // MIB}m" if limit else "free memory, or limit its size: --memory"
    if first and facts.oom_ended is None:
        words = (
            f"SIGKILL ended it: most likely the kernel's, as {whose} was used up, or else somebody's on the host, after the "
            "kernel had killed another process of it; the kernel's log, which knows, can't be read"
        )
        return Cause(OUT_OF_MEMORY, words, "unknown", hint)
    words = f"the kernel killed {'it' if first else 'a process of it'}: {whose} was used up"
    if not first:
        words += f", and it exited with {facts.status}"
    return Cause(OUT_OF_MEMORY, words, "the kernel", hint)


def _processes(facts: Facts, more: str) -> Cause:
    limit = facts.options.get("pids_limit")
    words = f"it had {limit} processes, as many as it may, and was refused {_times(facts.refused)} more{more}"
    return Cause(PROCESSES, words, "the kernel", f"give it more: --pids-limit {2 * limit}" if limit else "")


def by_signal(facts: Facts) -> Cause | None:
    """What a signal says that nobody has sent; or a shell that says so of what it ran."""
    xcpu_s, fsize = facts.ulimit("cpu"), facts.ulimit("fsize")
    cpu_s = facts.options.get("cpu_time_s") or xcpu_s
    if cpu_s and facts.is_end_of(SIGXCPU):
        return Cause(
            CPU_TIME, f"a process of it has used {span(cpu_s)} of processor time", "the kernel", "raise --ulimit cpu"
        )
    if fsize is not None and facts.is_end_of(SIGXFSZ):
        words = f"it wrote a file larger than {size_words(fsize)}"
        return Cause(FILE_SIZE, words, "the kernel", "raise --ulimit fsize")
    if not facts.signal:
        return None
    name = signal_name(facts.signal)
    if facts.disk_full:
        return _disk(facts, f"{name} ended it")
    if facts.signal in CRASHES:
        what, hint = CRASHES[facts.signal]
        return Cause(CRASHED, f"it crashed by {name}: {what}", "", hint or advice(facts.log))
    if facts.signal == SIGKILL:
        # A hard limit is told by SIGKILL.
        if xcpu_s and facts.cpu_s and facts.cpu_s >= xcpu_s * CLOCKS_DIFFER:
            return Cause(CPU_TIME, f"it has used {span(xcpu_s)} of processor time", "the kernel", "raise --ulimit cpu")
    if facts.log_lost:
        words = f"{name} ended it; who sent that is not known, as nothing could be written down: the disk was full"
        return Cause(SIGNAL, words, "unknown", "free some space")
    if facts.signal == SIGKILL:
        if facts.relayed:
            words = (
                "SIGKILL ended its command: a process of its own sent it, or somebody on the host, and not by minibox"
            )
            return Cause(SIGNAL, words, "unknown", "ausearch or the journal may know who")
        words = "somebody on the host sent it SIGKILL, and not by minibox: nothing inside can"
        return Cause(SIGNAL, words, "outside", "ausearch or the journal may know who")
    return Cause(SIGNAL, f"{name} ended it, and minibox did not send that", "unknown")


def by_itself(facts: Facts) -> Cause:
    """It ended by itself: because of a limit that it ran into and could not do without, or for reasons of its own."""
    words = f"exited with {facts.status}"
    if facts.status and (facts.disk_full or (facts.options.get("disk_bytes") and _says(facts, "no space left"))):
        return _disk(facts, f"it {words}")
    if facts.status and facts.refused:
        return _processes(facts, f", and {words}")
    nproc = facts.ulimit("nproc")
    if facts.status and nproc is not None and _says(facts, "resource temporarily unavailable"):
        return Cause(
            PROCESSES, f"it wanted more than {nproc} processes, and {words}", "the kernel", "raise --ulimit nproc"
        )
    if facts.status and facts.ulimit("fsize") is not None and _says(facts, "file too large"):
        words = f"it wanted to write a file larger than {size_words(facts.ulimit('fsize') or 0)}, and {words}"
        return Cause(FILE_SIZE, words, "the kernel", "raise --ulimit fsize")
    words, meaning = f"it ended by itself, with exit status {facts.status}", status_words(facts.status)
    hint = advice(facts.log) if facts.status else ""
    return Cause(EXITED, words + (f": {meaning}" if meaning else ""), "", hint)


def _disk(facts: Facts, end: str) -> Cause:
    limit = int(facts.options.get("disk_bytes") or 0)
    words = f"it had written all of the {size_words(limit)} that it may, and {end}"
    return Cause(DISK, words, "the kernel", f"give it more: --disk {max(1, 2 * limit // MIB)}m")


def _says(facts: Facts, words: str) -> bool:
    return any(words in line.lower() for line in facts.log)


def evidence(facts: Facts, kind: str) -> list[str]:
    """What speaks for the verdict, or for what it would have been; a sentence each.

    Args:
        kind: of the verdict, which says of itself what it is about.
    """
    found = []
    limit, peak = facts.options.get("memory_bytes"), facts.memory_peak_bytes
    if peak and (facts.oom_killed or (limit and peak > 0.9 * limit)):
        of = f", its limit is {size_words(limit)}" if limit else ""
        found.append(f"it used up to {size_words(peak)} of memory{of}")
    if facts.oom_killed and kind != OUT_OF_MEMORY:
        found.append("the kernel killed a process of it that ran out of memory")
    if facts.cpu_s and kind in (CPU_TIME, WALL_TIME, PROCESSES):
        found.append(f"its processes have used {span(facts.cpu_s)} of processor time")
    if facts.refused and kind != PROCESSES:
        limit = facts.options.get("pids_limit")
        found.append(f"it was refused {_times(facts.refused)} more than the {limit} processes that it may have")
    if facts.disk_full and kind != DISK:
        found.append("it had written as much as it may (--disk)")
    return found


def _times(count: int) -> str:
    return "one" if count == 1 else str(count)


def span(seconds: float) -> str:
    """A time in words: ``1.5 s``, ``2 min 3 s``."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
