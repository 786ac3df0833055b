"""Judge why a container ended, both for `minibox why`, which reads records, and for the API, which watched it run.

If a program ran into a limit and coped with it, it ended by itself: the limit is evidence then, not the cause.
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

    from minibox.outcome import Kind

SIGKILL, SIGXCPU, SIGXFSZ, LAST_SIGNAL = 9, 24, 25, 64
MIB = 1 << 20
#: The kernel counts RLIMIT_CPU in ticks. On a busy machine 1 s of ticks was 0.77 s by the cgroup's exact clock.
CLOCKS_DIFFER = 0.5


#: The members of `RunOptions` that help to explain an end.
OPTIONS = ("memory_bytes", "pids_limit", "timeout_s", "cpu_time_s", "output_bytes", "disk_bytes", "ulimit", "init")


@record
class Facts:
    """What we know about an end.

    Attributes:
        status: the exit status, as a shell reports it.
        signal: the signal that ended the first process; 0 for none.
        options: the options it was run with: `OPTIONS` or more, as in `options.given`.
        ended_for: the limit for which minibox killed it: `CPU_TIME`, `WALL_TIME` or `OUTPUT`; "" for none.
        relayed: its first process is an init that reports how the command ended.
        oom_killed: the kernel killed one of its processes because memory ran out.
        oom_ended: the killed process was its first one; None if unknown.
        oom_survived: it ran on after that, until minibox sent the signal that ended it.
        memory_peak_bytes, cpu_s: what it used; None if not measured.
        refused: how often the kernel refused it a new process.
        crowded: it had as many processes as its limit when minibox killed it.
        disk_full: its ``--disk`` had no space or no inodes left at the end.
        log_lost: part of its log was lost, as on a full disk. Notes of signals that minibox sent may be lost, too.
        log: the last lines it wrote.
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
        """Did this signal end it, or does it exit as a shell does whose command was ended by this signal?"""
        return number in (self.signal, self.status - 128)

    def ulimit(self, name: str) -> int | None:
        """The hard limit set by ``--ulimit``; None if not set."""
        all_words = map(str, self.options.get("ulimit") or ())  # values, or the words that were recorded
        words = [word.partition("=")[2] for word in all_words if word.startswith(f"{name}=")]
        hard = words[-1].rpartition(":")[2] if words else ""
        return int(hard) if hard.isdecimal() else None


def ended_by(status: int, signal: int, options: Mapping[str, Any], relayed: int | None) -> int:
    """The signal that ended a container's command; 0 for none. With ``--init``, the init exits as a shell does.

    Args:
        relayed: the signal that the first process reported; 0 for none, None if it wasn't asked. It is ignored without
            an init: the first process is the command then, and may report anything.
    """
    if not options.get("init"):
        return signal
    if relayed is None:
        relayed = status - 128 if 0 < status - 128 <= LAST_SIGNAL else 0
    return signal or relayed


@record
class Cause:
    """Why a container ended: a kind, a sentence, who ended it, and what the user can do."""

    kind: Kind
    summary: str
    sender: str = ""
    hint: str = ""


def by_limit(facts: Facts) -> Cause | None:
    """The limit for which minibox or the kernel killed it, as far as we can know; None if it wasn't a limit."""
    options, kind = facts.options, facts.ended_for
    if kind in (CPU_TIME, WALL_TIME) and facts.crowded and facts.refused:
        # It was at its limit to the end, as a fork bomb is.
        return _processes(facts, f", until its {kind.replace('-', ' ')} was used up")
    if kind == WALL_TIME:
        limit = span(float(options.get("timeout_s") or 0))
        return Cause(WALL_TIME, f"it timed out: it was killed after {limit} (--timeout)", "minibox")
    if kind == CPU_TIME:
        limit = span(float(options.get("cpu_time_s") or 0))
        return Cause(CPU_TIME, f"it was killed because its processes used {limit} of processor time", "minibox")
    if kind == OUTPUT:
        limit = size_words(int(options.get("output_bytes") or 0))
        return Cause(OUTPUT, f"it was killed because it wrote more than {limit} of output", "minibox")
    return _memory(facts) if _ran_out_of_memory(facts) else None


def _ran_out_of_memory(facts: Facts) -> bool:
    """Did running out of memory end it? It may have coped, and something else may have killed it later."""
    if not facts.oom_killed or not facts.status or facts.oom_survived:
        return False
    return not facts.signal or (facts.signal == SIGKILL and facts.oom_ended is not False)


def _memory(facts: Facts) -> Cause:
    limit, first = facts.options.get("memory_bytes"), facts.signal == SIGKILL
    whose = "its limit of " + size_words(limit) if limit else "the machine's memory"
    hint = f"give it more: --memory {2 * limit // MIB}m" if limit else "free memory, or limit its size: --memory"
    if first and facts.oom_ended is None:
        words = (
            f"SIGKILL ended it. Most likely the kernel sent it because {whose} was used up; or the kernel killed another "
            "of its processes, and somebody on the host killed this one. The kernel's log would tell, but can't be read"
        )
        return Cause(OUT_OF_MEMORY, words, "unknown", hint)
    words = f"the kernel killed {'it' if first else 'one of its processes'}: {whose} was used up"
    if not first:
        words += f", and it exited with {facts.status}"
    return Cause(OUT_OF_MEMORY, words, "the kernel", hint)


def _processes(facts: Facts, more: str) -> Cause:
    limit = facts.options.get("pids_limit")
    words = f"it reached its limit of {limit} processes, and the kernel refused it {_times(facts.refused)} more{more}"
    return Cause(PROCESSES, words, "the kernel", f"give it more: --pids-limit {2 * limit}" if limit else "")


def by_signal(facts: Facts) -> Cause | None:
    """What the signal means if minibox didn't send it; also for a shell that reports the signal of its command."""
    xcpu_s, fsize = facts.ulimit("cpu"), facts.ulimit("fsize")
    cpu_s = facts.options.get("cpu_time_s") or xcpu_s
    if cpu_s and facts.is_end_of(SIGXCPU):
        return Cause(
            CPU_TIME, f"one of its processes used {span(cpu_s)} of processor time", "the kernel", "raise --ulimit cpu"
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
        return Cause(CRASHED, f"it crashed with {name}: {what}", "", hint or advice(facts.log))
    if facts.signal == SIGKILL:
        # At the hard limit the kernel sends SIGKILL.
        if xcpu_s and facts.cpu_s and facts.cpu_s >= xcpu_s * CLOCKS_DIFFER:
            return Cause(CPU_TIME, f"it used {span(xcpu_s)} of processor time", "the kernel", "raise --ulimit cpu")
    if facts.log_lost:
        words = f"{name} ended it; the sender is unknown, because the disk was full and nothing could be recorded"
        return Cause(SIGNAL, words, "unknown", "free some space")
    if facts.signal == SIGKILL:
        if facts.relayed:
            words = (
                "SIGKILL ended its command: one of its own processes sent it, or somebody on the host, but not minibox"
            )
            return Cause(SIGNAL, words, "unknown", "ausearch or the journal may know who")
        words = "somebody on the host sent it SIGKILL, without minibox: no process inside can"
        return Cause(SIGNAL, words, "outside", "ausearch or the journal may know who")
    return Cause(SIGNAL, f"{name} ended it, and minibox did not send that", "unknown")


def by_itself(facts: Facts) -> Cause:
    """It exited by itself, because of a limit that it ran into or for reasons of its own."""
    words = f"exited with {facts.status}"
    if facts.status and (facts.disk_full or (facts.options.get("disk_bytes") and _says(facts, "no space left"))):
        return _disk(facts, f"it {words}")
    if facts.status and facts.refused:
        return _processes(facts, f", and it {words}")
    nproc = facts.ulimit("nproc")
    if facts.status and nproc is not None and _says(facts, "resource temporarily unavailable"):
        return Cause(
            PROCESSES, f"it needed more than {nproc} processes, and {words}", "the kernel", "raise --ulimit nproc"
        )
    if facts.status and facts.ulimit("fsize") is not None and _says(facts, "file too large"):
        words = f"it tried to write a file larger than {size_words(facts.ulimit('fsize') or 0)}, and {words}"
        return Cause(FILE_SIZE, words, "the kernel", "raise --ulimit fsize")
    words, meaning = f"it ended by itself, with exit status {facts.status}", status_words(facts.status)
    hint = advice(facts.log) if facts.status else ""
    return Cause(EXITED, words + (f": {meaning}" if meaning else ""), "", hint)


def _disk(facts: Facts, end: str) -> Cause:
    limit = int(facts.options.get("disk_bytes") or 0)
    words = f"it filled its disk of {size_words(limit)}, and {end}"
    return Cause(DISK, words, "the kernel", f"give it more: --disk {max(1, 2 * limit // MIB)}m")


def _says(facts: Facts, words: str) -> bool:
    return any(words in line.lower() for line in facts.log)


def evidence(facts: Facts, kind: str) -> list[str]:
    """What supports the verdict, or explains the end further; one sentence each.

    Args:
        kind: of the verdict. Its own sentence isn't repeated here.
    """
    found = []
    limit, peak = facts.options.get("memory_bytes"), facts.memory_peak_bytes
    if peak and (facts.oom_killed or (limit and peak > 0.9 * limit)):
        of = f", its limit is {size_words(limit)}" if limit else ""
        found.append(f"it used up to {size_words(peak)} of memory{of}")
    if facts.oom_killed and kind != OUT_OF_MEMORY:
        found.append("the kernel killed one of its processes because memory ran out")
    if facts.cpu_s and kind in (CPU_TIME, WALL_TIME, PROCESSES):
        found.append(f"its processes used {span(facts.cpu_s)} of processor time")
    if facts.refused and kind != PROCESSES:
        limit = facts.options.get("pids_limit")
        found.append(f"the kernel refused it {_times(facts.refused)} more than the {limit} processes of its limit")
    if facts.disk_full and kind != DISK:
        found.append("its disk was full (--disk)")
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
