"""Which limit ended a program, from what is known of its end; tests/integration/api/test_verdict.py has real ones."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from minibox.engine.verdict.cause import Cause, Facts, by_itself, by_limit, by_signal, evidence
from minibox.engine.verdict.failure_hints import signal_name

KILLED = {"status": 137, "signal": 9}
LIMITS = {
    "memory_bytes": 64 << 20,
    "pids_limit": 8,
    "timeout_s": 5.0,
    "cpu_time_s": 1.5,
    "output_bytes": 1 << 20,
    "disk_bytes": 2 << 20,
    "ulimit": ["fsize=4096", "cpu=2:3", "nproc=8"],
}


def cause(**facts: Any) -> Cause:
    found = Facts(**{"options": LIMITS, **facts})
    return by_limit(found) or by_signal(found) or by_itself(found)


@pytest.mark.parametrize(
    ("facts", "kind", "words"),
    [
        ({"status": 0}, "exited", "success"),
        ({"status": 3}, "exited", "exit status 3"),
        ({**KILLED, "ended_for": "wall-time"}, "wall-time", "after 5 s"),
        ({**KILLED, "ended_for": "cpu-time"}, "cpu-time", "1.5 s of processor time"),
        ({**KILLED, "ended_for": "output"}, "output", "more than 1 MiB of output"),
        (
            {**KILLED, "oom_killed": True, "oom_ended": True},
            "out-of-memory",
            "the kernel killed it: its limit of 64 MiB",
        ),
        (
            {**KILLED, "oom_killed": True},
            "out-of-memory",
            "Most likely the kernel sent it because its limit of 64 MiB was used up",
        ),
        ({**KILLED, "oom_killed": True}, "out-of-memory", "somebody on the host killed this one"),
        ({**KILLED, "oom_killed": True, "oom_ended": False}, "signal", "somebody on the host"),
        ({"status": 1, "oom_killed": True}, "out-of-memory", "one of its processes: its limit of 64 MiB"),
        ({"status": 1, "refused": 2}, "processes", "refused it 2 more, and it exited with 1"),
        ({"status": 1, "log": ("fork: Resource temporarily unavailable",)}, "processes", "more than 8 processes"),
        ({"status": 1, "disk_full": True}, "disk", "its disk of 2 MiB"),
        ({"status": 1, "log": ("cp: No space left on device",)}, "disk", "its disk of 2 MiB"),
        ({"status": 135, "signal": 7, "disk_full": True}, "disk", "SIGBUS ended it"),
        ({**KILLED, "log_lost": True}, "signal", "SIGKILL ended it; the sender is unknown"),
        ({"status": 143, "signal": 15, "log_lost": True}, "signal", "SIGTERM ended it; the sender is unknown"),
        ({"status": 139, "signal": 11, "log_lost": True}, "crashed", "SIGSEGV"),
        ({"status": 153, "signal": 25}, "file-size", "larger than 4 KiB"),
        ({"status": 153}, "file-size", "larger than 4 KiB"),
        ({"status": 1, "log": ("dd: File too large",)}, "file-size", "larger than 4 KiB"),
        ({"status": 152, "signal": 24}, "cpu-time", "one of its processes used 1.5 s"),
        ({**KILLED, "cpu_s": 0.77 * 3}, "cpu-time", "3 s of processor time"),
        ({**KILLED, "cpu_s": 0.1}, "signal", "somebody on the host"),
        ({"status": 139, "signal": 11}, "crashed", "SIGSEGV"),
        ({"status": 139, "signal": 11, "refused": 3}, "crashed", "SIGSEGV"),
    ],
)
def test_what_ended_it(facts: dict[str, Any], kind: str, words: str) -> None:
    found = cause(**facts)
    assert found.kind == kind and words in found.summary, found


@pytest.mark.parametrize("limit", ["wall-time", "cpu-time"])
def test_a_fork_bomb_is_told_from_a_program_that_takes_long(limit: str) -> None:
    facts: dict[str, Any] = {**KILLED, "ended_for": limit, "refused": 900}
    assert cause(**facts).kind == limit, "it had coped when it was killed"
    bomb = cause(**facts, crowded=True)
    assert (
        bomb.kind == "processes" and "refused it 900 more, until its" in bomb.summary and "--pids-limit 16" in bomb.hint
    )


def test_a_limit_that_it_coped_with_is_evidence() -> None:
    facts = Facts(0, options=LIMITS, oom_killed=True, refused=1, disk_full=True)
    assert cause(status=0, oom_killed=True, refused=1, disk_full=True).kind == "exited"
    assert evidence(facts, "exited") == [
        "the kernel killed one of its processes because memory ran out",
        "the kernel refused it one more than the 8 processes of its limit",
        "its disk was full (--disk)",
    ]


def test_signals_without_a_limit_are_no_limits() -> None:
    for number in (signal.SIGXCPU, signal.SIGXFSZ):
        found = by_signal(Facts(128 + number, number))
        assert found and found.kind == "crashed", "nobody has limited it: it has sent that itself"


def test_real_time_signals_have_names() -> None:
    names = {34: "SIGRTMIN", 37: "SIGRTMIN+3", 63: "SIGRTMIN+29", 64: "SIGRTMAX", 33: "signal 33", 9: "SIGKILL"}
    assert {number: signal_name(number) for number in names} == names
