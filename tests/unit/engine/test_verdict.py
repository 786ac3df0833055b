"""The verdict on what is on record; tests/integration/report/test_why.py has the records made by real containers."""

from __future__ import annotations

import ast
import fcntl
import json
import signal
from pathlib import Path

import pytest

from minibox import outcome
from minibox.base.home import Home
from minibox.engine.report.why import verdict
from minibox.engine.verdict import end_kinds, failure_hints

ID = "ab" * 32
STARTED = 1000.0


@pytest.fixture
def judge(tmp_path):
    def judge(*sent, log=(), **found):
        directory = tmp_path / "containers" / ID
        directory.mkdir(parents=True, exist_ok=True)
        record = {"Id": ID, "Name": "web", "Status": "exited", "Started": STARTED, "Finished": 1010.0, **found}
        (directory / "state.json").write_text(json.dumps(record))
        signals = [{"Number": number, "Why": why, "User": "ann", "Time": time} for number, why, time in sent]
        (directory / "signals").write_text("".join(json.dumps(each) + "\n" for each in signals) + "{half a li")
        lines = [{"log": text, "stream": stream, "time": "2026-01-01T00:00:00.0Z"} for stream, text in log]
        (directory / "log").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return verdict(Home(str(tmp_path), str(tmp_path / "run")), ID)

    return judge


def test_by_itself(judge):
    found = judge(ExitCode=0)
    assert (found.kind, found.status, found.signal, found.ran_s) == ("exited", 0, "", 10)
    assert found.summary == "it ended by itself, with exit status 0: success"


@pytest.mark.parametrize(
    ("status", "words"), [(127, "can't find"), (126, "can't execute"), (139, "SIGSEGV"), (5, "status 5")]
)
def test_exit_status(judge, status, words):
    found = judge(ExitCode=status)
    assert found.kind == "exited" and words in found.summary


def test_what_it_said_last_and_what_helps(judge):
    lines = [("stderr", "bind: Address already in use\n"), ("stdout", "more\n"), ("stderr", "giving up\n")]
    found = judge(ExitCode=1, log=lines)
    assert found.log == ("bind: Address already in use", "giving up")
    assert "another program uses that port" in found.hint


def test_a_success_needs_no_advice(judge):
    assert judge(ExitCode=0, log=[("stderr", "permission denied\n")]).hint == ""


def test_only_stdout(judge):
    assert judge(ExitCode=1, log=[("stdout", f"{number}\n") for number in range(9)]).log == ("4", "5", "6", "7", "8")


def test_a_signal_of_ours_is_told_from_one_of_others(judge):
    end = {"ExitCode": 137, "Signal": 9}
    assert judge((9, "kill", 1009.9), **end).summary == "ann sent it SIGKILL with minibox kill"
    assert judge(**end).kind == "signal" and "somebody on the host" in judge(**end).summary
    assert judge((9, "kill", 999.0), **end).kind == "signal"  # of an earlier start


def test_a_signal_that_did_not_end_it_is_no_more_than_evidence(judge):
    found = judge((1, "kill", 1009.0), ExitCode=3)
    assert found.kind == "exited" and found.evidence == ("1 s before, ann sent it SIGHUP with minibox kill",)
    assert judge((1, "kill", 1001.0), ExitCode=3).evidence == ()


def test_a_command_that_exits_at_a_signal(judge):
    assert judge((15, "kill", 1009.0), ExitCode=143).kind == "killed"


def test_stopped(judge):
    assert judge((15, "stop", 1009.0), ExitCode=0).summary == "ann stopped it with SIGTERM"
    found = judge((15, "stop", 1000.0), (9, "stop", 1010.0), ExitCode=137, Signal=9)
    assert (found.kind, found.evidence) == ("stopped", ("SIGTERM did not end it within 10 s, so minibox sent SIGKILL",))
    assert "--init" in found.hint


def test_crashes(judge):
    found = judge(ExitCode=135, Signal=int(signal.SIGBUS))
    assert (found.kind, found.signal) == ("crashed", "SIGBUS") and "--shm-size" in found.hint


def test_memory(judge):
    limited = {"MemoryPeak": 64 << 20, "Options": {"memory_bytes": 64 << 20}}
    found = judge(ExitCode=137, Signal=9, OOMKilled=True, OOMEnded=True, **limited)
    assert found.kind == "out-of-memory" and found.sender == "the kernel" and found.hint.endswith("--memory 128m")
    assert found.evidence == ("it used up to 64 MiB of memory, its limit is 64 MiB",)
    assert "the machine's memory" in judge(ExitCode=137, Signal=9, OOMKilled=True).summary


def test_memory_of_a_child_that_it_survived(judge):
    found = judge(ExitCode=0, OOMKilled=True)
    assert found.kind == "exited" and "the kernel killed one of its processes because memory ran out" in found.evidence


def test_timeout(judge):
    assert "after 5 s (--timeout)" in judge(ExitCode=137, Signal=9, TimedOut=True, Options={"timeout_s": 5}).summary


def test_owner_killed(judge):
    assert judge(ExitCode=137, OwnerKilled=True, Supervised=True).summary.startswith("its supervisor was killed")
    assert judge(ExitCode=137, OwnerKilled=True).summary.startswith("the minibox run that it belonged to")


def test_passed_on(judge):
    found = judge(ExitCode=130, Forwarded=[2])
    assert found.kind == "killed" and found.summary.startswith("minibox run received SIGINT")


def test_never_started(judge):
    found = judge(Status="created", Finished=None, ExitCode=126, Error="exec x: its loader /l is not in the image",
                  Hint="link it")  # fmt: skip
    assert (found.kind, found.status, found.hint, found.ran_s) == ("not-started", 126, "link it", None)
    found = judge(Status="created", Started=None, Finished=None)
    assert (found.kind, found.status, found.hint) == ("created", None, "minibox start web")


def test_still_there(judge, tmp_path):
    (tmp_path / "live").mkdir()
    with open(tmp_path / "live" / ID, "w") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        look_at_the_living(judge)


def look_at_the_living(judge):
    assert (judge(Status="paused").kind, judge(Status="paused").hint) == ("paused", "minibox unpause web")
    found = judge(Status="restarting", ExitCode=4, RestartCount=3, Options={"restart": "always"})
    assert found.kind == "restarting" and found.summary.endswith("status 4; it is about to be restarted")
    assert found.evidence == ("its restart policy always restarted it 3 times",)


def test_damaged(judge, tmp_path):
    judge()
    (tmp_path / "containers" / ID / "state.json").write_text("{")
    assert verdict(Home(str(tmp_path), str(tmp_path)), ID[:12]).kind == "damaged"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("app: error while loading shared libraries: libx.so.1: cannot open", "the library libx.so.1 is not"),
        ("Error loading shared library libz.so.1: No such file", "the library libz.so.1 is not"),
        ("$'\\r': command not found", "Windows line ends"),
        ("OSError: [Errno 28] No space left on device", "full"),
        ("touch: /x: Read-only file system", "--tmpfs"),
        ("java.lang.OutOfMemoryError: Java heap space", "--memory"),
        ("sh: can't fork: Resource temporarily unavailable", "--pids-limit"),
        ("wget: bad address 'example.org'", "--network"),
        ("mount: permission denied (are you root?)", "--user"),
        ("all is well", ""),
    ],
)
def test_sayings(line, words):
    assert words in failure_hints.advice([line]) if words else not failure_hints.advice([line])


def test_the_kinds_are_those_that_type_checkers_know():
    tree = ast.parse(Path(outcome.__file__).read_text())
    (words,) = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "Kind"
    ]
    known = {each.value for each in ast.walk(words) if isinstance(each, ast.Constant)}
    assert known == {value for name, value in vars(end_kinds).items() if name.isupper() and isinstance(value, str)}
