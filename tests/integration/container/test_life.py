"""The life of detached containers, by the commands that users have for it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from tests.container_box import Box
from tests.leaks import SLOWNESS
from tests.probes import requires, requires_user
from tests.running_container import running

pytestmark = requires("root")

Stopping = Callable[..., AbstractContextManager[subprocess.Popen[str]]]
OBEDIENT = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 1; done"
UNIQUE = str(100_000 + os.getpid())  # seconds that nobody else on this machine sleeps


def test_create_start_stop_and_start_again(any_box: Box) -> None:
    container_id = any_box.ok("create", "--network", "none", "--name", "web", "base", "sh", "-c", OBEDIENT)
    assert len(container_id) == 64 and any_box.state("web")["Status"] == "created"
    for _ in range(2):
        assert any_box.ok("start", "web") == "web"
        assert any_box.state("web")["Status"] == "running"
        assert any_box.ok("start", container_id[:12]) == container_id[:12]  # it runs already
        any_box.until_logged("web", "ready")
        assert any_box.ok("stop", "web") == "web"
        assert (any_box.state("web")["Status"], any_box.ok("wait", "web")) == ("exited", "3")
        assert any_box.ok("stop", "web") == "web"  # it has ended already
    assert any_box.ok("logs", "web") == "ready\nbye\nready\nbye"
    assert any_box.ok("rm", "web") == "web"


def test_what_it_wrote_is_there_after_a_restart(any_box: Box) -> None:
    any_box.start("web", "cat /count 2>/dev/null; echo x >>/count; echo written; exec sleep 100")
    any_box.until_logged("web", "written")
    before = any_box.live("web")
    assert any_box.ok("restart", "-t", "0", "web") == "web"
    assert any_box.live("web") != before
    any_box.until_logged("web", "x")
    assert any_box.state("web")["Status"] == "running"


def test_one_of_rm_is_there_after_a_restart_and_gone_after_a_stop(box: Box) -> None:
    box.start("web", "echo x >>/count; cat /count; exec sleep 100", "--rm")
    box.until_logged("web", "x")
    box.ok("restart", "-t0", "web")
    box.until_logged("web", "x\nx\nx")
    box.ok("stop", "-t0", "web")
    assert box.left() == []


@pytest.fixture
def stopping(minibox_command: list[str], environment: dict[str, str]) -> Stopping:
    """``with stopping("web", status=125):`` a `stop` that goes on, and has ended behind the block."""

    @contextmanager
    def stop(*words: str, status: int = 0) -> Iterator[subprocess.Popen[str]]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen([*minibox_command, "stop", *words], env=environment, **pipes) as started:
            try:
                yield started
                assert started.wait(20 * SLOWNESS) == status
            finally:
                started.kill()

    return stop


def test_stop_kills_what_is_stubborn(box: Box, stopping: Stopping) -> None:
    for name, seconds in (("soon", "1"), ("late", "100")):
        box.start(name, STUBBORN, "--stop-timeout", seconds)
        box.until_logged(name, "ready")
    begin = time.monotonic()
    with stopping("soon", "late"):
        assert box.ok("wait", "soon") == "137"
        assert time.monotonic() - begin >= 1
        assert box.state("late")["Status"] == "running"
        box.ok("kill", "late")


def test_stop_may_wait_for_ever(box: Box) -> None:
    script = "trap 'sleep 1; exit 4' TERM; echo ready; while :; do sleep 0.05; done"
    box.start("web", script, "--stop-timeout", "-1")
    box.until_logged("web", "ready")
    box.ok("stop", "web")
    assert box.ok("wait", "web") == "4"


@pytest.mark.parametrize("words", [("stop", "-s", "USR1"), ("stop",), ("kill", "-s", "USR1"), ("kill", "--signal=10")])
def test_signals(words: tuple[str, ...], box: Box) -> None:
    script = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done"
    box.start("web", script, *(["--stop-signal", "SIGUSR1"] if words == ("stop",) else []))
    box.until_logged("web", "ready")
    box.ok(*words, "web")
    assert box.ok("wait", "web") == "5"


def test_several_at_once_and_one_that_is_not_there(box: Box, stopping: Stopping) -> None:
    for name, script in (("one", STUBBORN), ("two", OBEDIENT)):
        box.start(name, script)
        box.until_logged(name, "ready")
    with stopping("-t", "100", "one", "nosuch", "two", status=125) as stop:
        assert box.ok("wait", "two") == "3"  # side by side
        assert box.state("one")["Status"] == "running"
        box.ok("kill", "one")
        stdout, stderr = stop.communicate(timeout=20 * SLOWNESS)
    assert stdout == "one\ntwo\n" and "there is no container 'nosuch'" in stderr
    assert box.ok("wait", "one", "two") == "137\n3"


@pytest.mark.kernel
@requires("cgroup")
def test_pause(box: Box) -> None:
    clock = box.directory / "clock"  # not its log, to which what it has just said may come later
    clock.mkdir()
    box.start("web", "while :; do echo tick >>/clock/ticks; sleep 0.1; done", "-v", f"{clock}:/clock")
    box.until((clock / "ticks").exists)
    assert box.ok("pause", "web") == "web"
    ticks = (clock / "ticks").read_text()
    time.sleep(SLOWNESS / 2)
    assert (clock / "ticks").read_text() == ticks
    box.ok("unpause", "web")
    box.until(lambda: (clock / "ticks").read_text() != ticks)
    box.ok("pause", "web")
    box.ok("kill", "web")
    assert box.ok("wait", "web") == "137"


@requires("cgroup")
@pytest.mark.parametrize("end", [("stop", "-t", "0"), ("rm", "-f")], ids=" ".join)
def test_one_that_is_paused_ends(box: Box, end: tuple[str, ...]) -> None:
    box.start("web", "exec sleep 1000")
    box.ok("pause", "web")
    box.ok(*end, "web")
    assert "Up" not in box.ok("ps", "-a")


@requires("cgroup")
def test_what_one_that_is_paused_refuses(box: Box) -> None:
    box.start("web", "exec sleep 1000")
    box.ok("pause", "web")
    assert "(Paused)" in box.ok("ps")
    assert "already paused" in box.refused("pause", "web")
    for words in (("start", "web"), ("exec", "web", "true"), ("attach", "web")):
        assert "is paused" in box.refused(*words)
    box.ok("unpause", "web")
    assert "not paused" in box.refused("unpause", "web")


def test_errors_of_what_does_not_run(box: Box) -> None:
    box.ok("create", "--network", "none", "--name", "web", "base", "true")
    for words in (("kill",), ("pause",), ("unpause",), ("attach",), ("top",)):
        assert "not running" in box.refused(*words, "web")
    assert "not running" in box.refused("exec", "web", "true")
    assert box.ok("wait", "web") == "0"
    assert "invalid signal" in box.refused("kill", "-s", "nosuch", "web")
    for words in (("start",), ("stop",), ("restart",), ("kill",), ("wait",), ("logs",), ("port",), ("rm",)):
        assert "there is no container 'nosuch'" in box.refused(*words, "nosuch")


def test_ids_that_begin_alike_are_ambiguous(box: Box) -> None:
    ids = [box.ok("create", "--network", "none", "base", "true") for _ in range(17)]
    same = next(each[0] for each in ids if sum(other[0] == each[0] for other in ids) > 1)
    assert "is ambiguous" in box.refused("start", same)
    inspected = box("inspect", same)
    assert inspected.returncode == 125 and "is ambiguous" in inspected.stderr, inspected


def test_rename(any_box: Box) -> None:
    any_box.start("web", "exec sleep 100")
    assert any_box.ok("rename", "web", "db") == ""
    assert "there is no container 'web'" in any_box.refused("stop", "web")
    any_box.ok("kill", "db")
    assert any_box.state("db")["Status"] == "exited"
    any_box.ok("create", "--network", "none", "--name", "web", "base", "true")
    assert "is taken" in any_box.refused("rename", "web", "db")
    any_box.ok("start", "db")
    assert any_box.ok("ps", "--format", "{{.Names}}") == "db"


def test_rename_of_a_made_up_name(box: Box) -> None:
    container_id = box.ok("create", "--network", "none", "base", "true")
    made_up = box.state(next(iter(box.states())))["Name"]
    box.ok("rename", made_up, "web")
    assert "there is no container" in box.refused("rm", made_up)
    assert box.state("web")["Id"] == container_id


def test_of_a_foreground_run(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    with running(minibox_command, environment, "--network", "none", "--name", "front") as front:
        assert "--rm in the foreground" in box.refused("restart", "front")
        box.ok("rename", "front", "other")
        assert box.ok("ps", "--format", "{{.Names}}") == "other"
        box.ok("stop", "-t0", "other")
        assert front.process.wait(20 * SLOWNESS) == 137
    assert box.left() == []


def test_rm(box: Box) -> None:
    box.start("web", "exec sleep 100")
    assert "is running" in box.refused("rm", "web")
    done = box("rm", "-f", "nosuch", "web")
    assert (done.returncode, done.stdout) == (0, "web\n") and "nosuch" in done.stderr
    assert "name the containers" in box.refused("rm")
    box.start("one", "exec sleep 100")
    box.ok("create", "--network", "none", "--name", "two", "base", "true")
    assert len(box.ok("rm", "-f", "-v", "--all").splitlines()) == 2
    assert box.left() == []


@pytest.mark.kernel
def test_rm_of_what_forks_and_hides(box: Box) -> None:
    """Nothing outlives it: daemons, their sessions, processes of an exec."""
    sleep = f"sleep {UNIQUE}"
    box.start("web", f"(setsid sh -c '{sleep} & {sleep}' &); ({sleep} &); exec {sleep}")
    box.ok("exec", "-d", "web", "sh", "-c", f"trap '' HUP TERM; setsid {sleep}")
    box.until(lambda: len(box.ok("top", "web").splitlines()) > 5)
    box.ok("rm", "-f", "web")
    assert not [pid for pid in filter(str.isdigit, os.listdir("/proc")) if UNIQUE in _command(pid)]


def _command(pid: str) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().split("\0")
    except OSError:
        return []


@pytest.mark.parametrize("policy, times", [("no", 1), ("on-failure:2", 3), ("on-failure", 0), ("always", 0)])
def test_restart_policies(policy: str, times: int, box: Box) -> None:
    told = box.directory / "told"
    told.mkdir()
    script = "echo try; [ ! -e /told/last ] || exec sleep 100; exit 1"
    box.start("web", script, "--restart", policy, "-v", f"{told}:/told:ro")
    if times:
        assert box.ok("wait", "web") == "1"
        assert box.ok("logs", "web").split() == ["try"] * times
    else:
        box.until(lambda: box.state("web").get("RestartCount", 0) > 1)
        box.ok("stop", "web")  # in the back-off, most likely
        assert box.state("web")["Status"] == "exited"
        count = box.state("web")["RestartCount"]
        time.sleep(0.5)
        assert box.state("web")["RestartCount"] == count
        (told / "last").touch()
        box.ok("start", "web")
        assert box.state("web").get("RestartCount", 0) == 0


def test_success_is_not_restarted_on_failure(box: Box) -> None:
    box.start("web", "echo try", "--restart", "on-failure")
    assert (box.ok("wait", "web"), box.ok("logs", "web")) == ("0", "try")


def test_back_off_grows(box: Box) -> None:
    box.start("web", "exit 1", "--restart", "on-failure:3")
    box.ok("wait", "web")
    assert box.state("web")["RestartDelay"] == pytest.approx(0.4)


@pytest.mark.parametrize("words", [("--restart", "sometimes"), ("--restart", "on-failure:x"), ("--restart", "always:3"),
                                   ("--rm", "--restart", "always"), ("--log-opt", "max-size=x")])  # fmt: skip
def test_what_can_not_be_meant(words: tuple[str, ...], box: Box) -> None:
    for command in (("run", "-d"), ("run",), ("create",)):
        box.refused(*command, *words, "--network", "none", "base", "true")
    assert box.left() == []


def test_a_command_that_is_not_there(any_box: Box) -> None:
    for status, command in ((127, "nosuch"), (126, "/etc/passwd")):
        done = any_box("run", "-d", "--network", "none", "--name", "web", "base", command)
        assert (done.returncode, done.stdout) == (status, "")
        assert any_box.state("web")["Status"] == "created"
        assert any_box("start", "web").returncode == status
        any_box.ok("rm", "web")
    assert any_box("run", "-d", "--rm", "--network", "none", "base", "nosuch").returncode == 127
    assert any_box.left() == []


def test_an_image_that_was_removed(box: Box) -> None:
    box.start("first", "echo data >/file")
    box.ok("wait", "first")
    box.ok("commit", "first", "mine")
    box.ok("run", "-d", "--network", "none", "--name", "web", "mine", "sleep", "100")
    box.ok("kill", "web")
    box.ok("rmi", "-f", "mine")
    why = box.refused("restart", "web")
    assert "web" in why and "removed" in why
    assert box.state("web")["Status"] == "exited"
    assert "file" in box.ok("export", "web", text=True, errors="replace")
    box.ok("rm", "web")


@requires_user
def test_an_ordinary_users_with_a_network(user_box: Box) -> None:
    """pasta goes with the container."""
    user_box.ok("run", "-d", "--name", "web", "base", "sh", "-c", "ip -o addr; exec sleep 100")
    user_box.until_logged("web", "lo")
    user_box.ok("restart", "-t0", "web")
    user_box.ok("stop", "-t0", "web")


def test_its_supervisor_is_killed(any_box: Box) -> None:
    any_box.start("web", "exec sleep 100")
    pid, supervisor = any_box.live("web")
    os.kill(supervisor, signal.SIGKILL)
    assert any_box.ok("wait", "web") == "137"
    state = any_box.state("web")
    assert (state["Status"], state["OwnerKilled"]) == ("exited", True)
    any_box.until(lambda: _command(str(pid)) in ([], [""]), "it is gone, or a zombie")
    any_box.ok("start", "web")


def test_it_survives_the_command_that_made_it_and_holds_nothing_of_it(box: Box) -> None:
    box.start("web", "ls -l /proc/self/fd; exec sleep 100")
    _, supervisor = box.live("web")
    assert _command(str(supervisor))[:2] == ["minibox-supervisor", box.state("web")["Id"][:12]]
    targets = [os.readlink(f"/proc/{supervisor}/fd/{fd}") for fd in os.listdir(f"/proc/{supervisor}/fd")]
    own = str(box.directory)
    assert all(t.startswith((own, "pipe:", "socket:", "anon_inode:", "/dev/null")) for t in targets), targets
    assert os.readlink(f"/proc/{supervisor}/cwd") == "/"


def test_a_foreground_run_with_a_policy_shows_its_first_end(box: Box) -> None:
    done = box("run", "--restart", "on-failure:1", "--network", "none", "--name", "web", "base", "sh", "-c",
               "echo out; echo err >&2; exit 6")  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (6, "out\n", "err\n")
    box.ok("wait", "web")
    assert box.ok("logs", "web") == "out\nout"


def test_a_foreground_run_with_a_log_takes_input(box: Box) -> None:
    done = box("run", "-i", "--rm", "--log-driver", "json-file", "--network", "none", "base", "cat", input="a\nb\n")
    assert (done.returncode, done.stdout) == (0, "a\nb\n")
    assert box.left() == []
