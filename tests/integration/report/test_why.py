"""minibox why: each verdict on a container that came to that end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import minibox
from tests.container_box import Box
from tests.images import derive, file
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root")

SLEEP = "exec sleep 100"


def why(box: Box, name: str = "web") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(box.ok("why", "--json", name))
    return found


def ended(box: Box, script: str, *options: str) -> dict[str, Any]:
    """The verdict on a detached container that runs ``script``."""
    box.start("web", script, *options)
    box.ok("wait", "web")
    return why(box)


def test_by_itself_with_its_last_words(any_box: Box) -> None:
    found = ended(any_box, "echo out; echo 'cannot bind: Address already in use' >&2; exit 7")
    assert (found["kind"], found["status"], found["signal"]) == ("exited", 7, "")
    assert found["log"] == ["cannot bind: Address already in use"]
    text = any_box.ok("why", "web")
    assert text.splitlines()[0] == "web: it ended by itself, with exit status 7"
    assert text.splitlines()[-1].startswith("hint: another program uses that port")


def test_the_last_words_on_a_terminal_are_those_that_were_seen(box: Box) -> None:
    script = r"printf '\033[1mloading\033[0m\n 10%%\r100%%\n\033[31mno such model\033[m\n'; exit 1"
    assert ended(box, script, "--tty")["log"] == ["loading", "100%", "no such model"]
    assert box.ok("why", "web").endswith("\n    no such model")


def test_what_it_said_before_its_last_start_is_no_news(box: Box) -> None:
    ended(box, "echo said once >&2; test ! -e /again; touch /again")
    box.ok("start", "web")
    box.ok("wait", "web")
    assert why(box)["log"] == ["said once"]


def test_127_of_a_shell(box: Box) -> None:
    found = ended(box, "nosuch")
    assert (found["kind"], found["status"]) == ("exited", 127) and "can't find" in found["summary"]


@pytest.mark.parametrize("detached", [True, False])
@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"#!/bin/sh\r\necho hi\r\n", 126, "its first line ends in a carriage return"),
        (b"#!/usr/bin/nosuch\n", 126, "its interpreter /usr/bin/nosuch is not in the image"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xf3\x00" + bytes(100), 126, "it is a program for riscv64"),
        (None, 127, "no such command in the image"),
    ],
)
def test_never_started(box: Box, state: Path, content: bytes | None, status: int, words: str, detached: bool) -> None:
    members = [] if content is None else [file("bin/odd", content, mode=0o755)]
    derive(state / "root", "strange", *members)
    done = box("run", *(["-d"] if detached else []), "--network", "none", "--name", "web", "strange", "odd")
    assert done.returncode == status
    found = why(box)
    assert (found["kind"], found["status"], found["ran_s"]) == ("not-started", status, None)
    assert words in found["summary"] and found["hint"]


def test_stopped_and_killed_by_whom(any_box: Box) -> None:
    any_box.start("obeys", "trap 'exit 0' TERM; echo x; while :; do sleep 0.05; done")
    any_box.start("stubborn", "trap '' TERM; echo x; while :; do sleep 0.05; done")
    any_box.start("shot", SLEEP)
    for name in ("obeys", "stubborn"):
        any_box.until_logged(name, "x")
    any_box.ok("stop", "obeys")
    any_box.ok("stop", "-t1", "stubborn")
    any_box.ok("kill", "shot")
    user = why(any_box, "shot")["sender"].rpartition(" ")[2]
    assert user and why(any_box, "shot")["sender"] == f"minibox kill by {user}"
    obeyed, stubborn = why(any_box, "obeys"), why(any_box, "stubborn")
    assert (obeyed["kind"], obeyed["status"]) == ("stopped", 0)
    assert obeyed["summary"] == f"{user} stopped it with SIGTERM"
    assert (stubborn["kind"], stubborn["signal"]) == ("stopped", "SIGKILL")
    assert stubborn["evidence"] == ["SIGTERM did not end it within 1 s, so minibox sent SIGKILL"]
    assert why(any_box, "shot")["summary"] == f"{user} sent it SIGKILL with minibox kill"


def test_a_signal_from_outside(box: Box) -> None:
    box.start("web", SLEEP)
    os.kill(box.live("web")[0], signal.SIGKILL)
    box.ok("wait", "web")
    found = why(box)
    assert (found["kind"], found["status"], found["sender"]) == ("signal", 137, "outside")


def program(code: bytes, machine: int) -> bytes:
    """A static ELF program of nothing but ``code``; elf(5)."""
    at, size = 0x400000, 64 + 56 + len(code)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, at + 120, 64, 0, 0, 64, 56, 1,
                                                           0, 0, 0)  # fmt: skip
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, at, at, size, size, 4096) + code


def test_a_crash(box: Box, state: Path) -> None:
    """Only a fault: a first process gets no signal that it has no handler for."""
    faults = {"x86_64": (b"\x0f\x0b", 62), "aarch64": (bytes(4), 183)}  # ud2, udf
    derive(state / "root", "faulty", file("bin/fault", program(*faults[os.uname().machine]), mode=0o755))
    box.ok("run", "-d", "--network", "none", "--name", "web", "faulty", "fault")
    assert box.ok("wait", "web") == "132"
    found = why(box)
    assert (found["kind"], found["signal"]) == ("crashed", "SIGILL") and "newer processor" in found["hint"]


@requires("cgroup:memory")
def test_out_of_memory(box: Box) -> None:
    found = ended(box, "exec tail /dev/zero", "--memory", "16m", "--memory-swap", "16m")
    assert (found["kind"], found["status"], found["sender"]) == ("out-of-memory", 137, "the kernel")
    assert found["summary"] == "the kernel killed it: its limit of 16 MiB was used up"
    assert found["hint"] == "give it more: --memory 32m"
    assert found["evidence"][0].endswith("its limit is 16 MiB")


@requires("cgroup:memory")
def test_a_child_out_of_memory(box: Box) -> None:
    found = ended(box, "tail /dev/zero; exit 9", "--memory", "16m", "--memory-swap", "16m")
    assert (found["kind"], found["status"]) == ("out-of-memory", 9) and "one of its processes" in found["summary"]


@pytest.mark.parametrize(
    ("script", "options", "kind", "words"),
    [
        (
            "for i in 1 2 3 4 5 6 7 8 9; do sleep 9 & done",
            ("--pids-limit", "5"),
            "processes",
            "its limit of 5 processes",
        ),
        ("dd if=/dev/zero of=/big", ("--disk", "1m"), "disk", "its disk of 1 MiB"),
        ("dd if=/dev/zero of=/big", ("--ulimit", "fsize=1000"), "file-size", "larger than 1000 bytes"),
        ("while :; do :; done", ("--ulimit", "cpu=1"), "cpu-time", "used 1 s of processor time"),
    ],
)
@requires("cgroup:pids")
def test_other_limits(box: Box, script: str, options: tuple[str, ...], kind: str, words: str) -> None:
    found = ended(box, script, *options)
    assert found["kind"] == kind and words in found["summary"], found


@pytest.mark.parametrize("detached", [True, False])
def test_timeout(any_box: Box, detached: bool) -> None:
    words = ["run", *(["-d"] if detached else []), "--network", "none", "--name", "web", "--timeout", "300ms"]
    done = any_box(*words, "base", "sleep", "100")
    assert any_box.ok("wait", "web") == "137"
    found = why(any_box)
    assert (found["kind"], found["status"], found["sender"]) == ("wall-time", 137, "minibox")
    assert 0.3 <= found["ran_s"] < 50 * SLOWNESS
    if not detached:
        assert done.returncode == 137
        assert done.stderr.endswith("minibox: the container was killed after 0.3 s (--timeout)\n")


def test_a_timeout_that_is_not_reached(box: Box) -> None:
    done = box("run", "--rm", "--network", "none", "--timeout", "1m", "base", "sh", "-c", "exit 4")
    assert (done.returncode, done.stderr) == (4, "")


def test_the_supervisor_was_killed(box: Box) -> None:
    box.start("web", SLEEP)
    os.kill(box.live("web")[1], signal.SIGKILL)
    box.ok("wait", "web")
    found = why(box)
    assert found["kind"] == "owner-killed" and found["summary"].startswith("its supervisor was killed")


def in_the_foreground(box: Box, command: list[str], environment: dict[str, str], number: int) -> dict[str, Any]:
    """The verdict on one whose `minibox run` got a signal; the third SIGINT ends it."""
    script = "trap 'echo got' INT; echo x; while :; do sleep 0.05; done"
    words = [*command, "run", "--network", "none", "--name", "web", "base", "sh", "-c", script]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "x\n"
        box.until(lambda: "web" in box.states(), "it is on record")
        for _ in range(2 if number == signal.SIGINT else 0):
            process.send_signal(number)
            assert process.stdout.readline() == "got\n"  # else two that wait are one
        process.send_signal(number)
    box.ok("wait", "web")
    return why(box)


def test_minibox_run_was_killed(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    found = in_the_foreground(box, minibox_command, environment, signal.SIGKILL)
    assert found["kind"] == "owner-killed" and "the minibox run that it belonged to" in found["summary"]


def test_ctrl_c_that_was_passed_on(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    found = in_the_foreground(box, minibox_command, environment, signal.SIGINT)
    assert (found["kind"], found["status"]) == ("killed", 137)
    assert "minibox run received" in found["summary"]


def test_health(box: Box) -> None:
    check = ("--health-cmd", "echo all is lost; false", "--health-interval", "150ms", "--health-retries", "1")
    found = ended(box, SLEEP, *check, "--health-on-failure", "kill")
    assert (found["kind"], found["status"]) == ("unhealthy", 137)
    assert "the last check wrote: all is lost" in found["evidence"]


def test_restarts_are_counted(box: Box) -> None:
    found = ended(box, "exit 5", "--restart", "on-failure:2")
    assert (found["kind"], found["status"]) == ("exited", 5)
    assert found["evidence"] == ["its restart policy on-failure:2 restarted it 2 times"]


def test_those_that_have_not_ended(box: Box) -> None:
    box.ok("create", "--network", "none", "--name", "new", "base", "true")
    box.start("web", SLEEP)
    assert (why(box, "new")["kind"], why(box, "new")["status"]) == ("created", None)
    assert (why(box)["kind"], why(box)["status"]) == ("running", None)
    box.ok("pause", "web")
    assert (why(box)["kind"], why(box)["hint"]) == ("paused", "minibox unpause web")
    box.ok("unpause", "web")
    assert [each["kind"] for each in json.loads(box.ok("why", "--json", "web", "new"))] == ["running", "created"]
    assert box.refused("why", "nosuch") == "there is no container 'nosuch'"


HUNGRY = "tail /dev/zero; "  # a child that the kernel kills for memory, and that its parent copes with
LIMITED = ("--memory", "16m", "--memory-swap", "16m")
WAITS = "echo coped; exec sleep 1000"


def by_host(box: Box) -> None:
    os.kill(box.live("web")[0], signal.SIGKILL)


#: What it runs, with what options, and who ends it how: kind, and a word of the summary.
ENDS: dict[str, tuple[str, tuple[str, ...], Callable[[Box], object] | None, str, str]] = {
    "coped, then minibox kill": (HUNGRY + WAITS, LIMITED, lambda box: box.ok("kill", "web"), "killed", "minibox kill"),
    "coped, then minibox stop": (
        HUNGRY + WAITS, LIMITED, lambda box: box.ok("stop", "-t", "0", "web"), "stopped", "stopped it"
    ),
    "coped, then stopped by a handler": (
        HUNGRY + "trap 'exit 1' TERM; echo coped; while :; do sleep 0.05; done", LIMITED,
        lambda box: box.ok("stop", "web"), "stopped", "SIGTERM",
    ),
    "coped, then killed by the host": (HUNGRY + WAITS, LIMITED, by_host, "signal", "somebody on the host"),
    "coped, then a crash": (
        HUNGRY + "echo coped; kill -SEGV $$; exec sleep 1000", ("--init", *LIMITED), None, "crashed", "SIGSEGV"
    ),
    "coped, then ended well": (HUNGRY + "echo coped; exit 0", LIMITED, None, "exited", "exit status 0"),
    "its first process": ("echo coped; exec tail /dev/zero", LIMITED, None, "out-of-memory", "the kernel killed it"),
    "its child, and so itself": ("echo coped; tail /dev/zero; exit $?", LIMITED, None, "out-of-memory", "one of its processes"),
    "twice, the second time its first": (
        HUNGRY + "echo coped; exec tail /dev/zero", LIMITED, None, "out-of-memory", "the kernel killed it"
    ),
    "init, and a kill from inside": (
        "echo coped; kill -KILL $$; exec sleep 1000", ("--init",), None, "signal", "one of its own processes"
    ),
    "init, and 137 of its own": ("echo coped; exit 137", ("--init",), None, "exited", "by itself, with exit status 137"),
    "init, and memory": ("echo coped; exec tail /dev/zero", ("--init", *LIMITED), None, "out-of-memory", "the kernel"),
    "init, and minibox kill": (WAITS, ("--init",), lambda box: box.ok("kill", "web"), "killed", "minibox kill"),
    "137 of its own": ("echo coped; exit 137", (), None, "exited", "by itself, with exit status 137"),
}  # fmt: skip


def kernel_log_begins_s() -> float:
    """The time of the oldest record, by the monotonic clock; some 25 reports on memory fill the log."""
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            with contextlib.suppress(BrokenPipeError):  # overwritten meanwhile
                return int(os.read(fd, 8192).split(b",")[2]) / 1e6
    finally:
        os.close(fd)


@requires("cgroup:memory")
@pytest.mark.parametrize("case", ENDS)
def test_what_ended_this_process_and_not_another(box: Box, case: str) -> None:
    script, options, end, kind, words = ENDS[case]
    while True:
        since_s = time.monotonic() - 2
        box.start("web", script, *options)
        if end:
            box.until_logged("web", "coped")
            end(box)
        box.ok("wait", "web")
        found = why(box)
        if kernel_log_begins_s() < since_s:
            break
        box.ok("rm", "web")  # others' processes ran out of memory so often that what we look for was overwritten
    assert (found["kind"], words in found["summary"]) == (kind, True), found
    coped = "the kernel killed one of its processes because memory ran out"
    assert (coped in found["evidence"]) == (HUNGRY in script and kind != "out-of-memory"), found


@pytest.fixture
def no_kernel_log(tmp_path: Path) -> Iterator[None]:
    """Nobody can read it, as an ordinary user where kernel.dmesg_restrict is set."""
    (tmp_path / "empty").touch()
    subprocess.run(["mount", "--bind", str(tmp_path / "empty"), "/dev/kmsg"], check=True)
    yield
    subprocess.run(["umount", "/dev/kmsg"], check=True)


@requires("cgroup:memory")
@pytest.mark.parametrize("case", ["coped, then killed by the host", "its first process"])
def test_where_the_kernels_log_can_not_be_read_both_are_named(box: Box, no_kernel_log: None, case: str) -> None:
    script, options, end, *_ = ENDS[case]
    box.start("web", script, *options)
    if end:
        box.until_logged("web", "coped")
        end(box)
    box.ok("wait", "web")
    found = why(box)
    assert found["kind"] == "out-of-memory" and found["sender"] == "unknown"
    assert "Most likely the kernel sent it because its limit of 16 MiB was used up" in found["summary"]
    assert "somebody on the host killed this one" in found["summary"]


@pytest.mark.parametrize("mode", [[], ["-d"], ["-d", "--init"]], ids=" ".join)
@pytest.mark.parametrize(("name", "status"), [("9999", 3), ("-5", 3), ("9", 3), ("9", 137)])
def test_a_program_that_calls_itself_as_an_init_of_ours_does(box: Box, mode: list[str], name: str, status: int) -> None:
    script = f"printf mb-signal-{name} >/proc/self/comm; read own </proc/self/comm; echo $own; exit {status}"
    done = box("run", *mode, "--network", "none", "--name", "web", "base", "sh", "-c", script)
    assert done.returncode == (0 if mode else status), done.stderr
    assert (box.ok("wait", "web"), box.ok("logs", "web") if mode else done.stdout.strip()) == (
        str(status),
        f"mb-signal-{name}",
    )
    found = why(box)
    assert (found["kind"], found["status"], found["signal"]) == ("exited", status, "")


@requires("cgroup:memory")
def test_the_same_of_a_sandbox(api: None) -> None:
    def judged(script: str, end: Callable[[minibox.Sandbox], object], **options: Any) -> tuple[str, str]:
        with minibox.Sandbox("base", ["sh", "-c", script], memory="16m", **options) as box:
            box.wait_for(log="coped")
            end(box)
            box.wait()
            return box.verdict.kind, box.verdict.sender

    assert judged(HUNGRY + WAITS, lambda box: box.kill()) == ("killed", "this program")
    assert judged(HUNGRY + WAITS, lambda box: os.kill(box.pid, signal.SIGKILL)) == ("signal", "outside")
    assert judged(WAITS, lambda box: os.kill(box.pid, signal.SIGKILL)) == ("signal", "outside")
    assert judged("echo coped; exit 137", lambda box: None, init=True) == ("exited", "")
    assert judged("echo coped; kill -KILL $$", lambda box: None, init=True) == ("signal", "unknown")
    assert judged("echo coped; exec tail /dev/zero", lambda box: None)[0] == "out-of-memory"
