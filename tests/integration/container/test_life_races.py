"""The life of containers when two meddle at once, or somebody is killed in the middle of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from functools import partial
from select import select
from typing import Any

import pytest

from minibox.linux.supervisor import DELAY_ARGV0
from tests.container_box import Box, has_pidfd_of
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root")

SLEEP = ("base", "sleep", "100")
Started = subprocess.Popen[str]


@pytest.fixture
def begin(minibox_command: list[str], environment: Mapping[str, str]) -> Any:
    """``begin("start", "web")``: a command that isn't waited for."""

    def start(*words: str) -> Started:
        return subprocess.Popen(
            [*minibox_command, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


def ended(*commands: Started) -> list[tuple[int, str]]:
    """Exit status and stderr of each."""
    found = []
    for command in commands:
        _, stderr = command.communicate(timeout=30 * SLOWNESS)
        found.append((command.returncode, stderr))
    return found


WHEN_TOLD = "until [ -e /go ]; do sleep 0.02; done; exit 7"


def all_watch(box: Box, name: str, *waiting: Started) -> None:
    """Wait until each `wait` waits for the end of its container's process; then tell that to end."""
    pid, _ = box.live(name)
    box.until(lambda: all(has_pidfd_of(pid, each.pid) for each in waiting), "it is waited for")
    box.tell(name)


def is_true(box: Box) -> None:
    """What ps says of each container is what the kernel has, as soon as whoever was left behind has ended."""
    for name, state in box.states().items():
        agree = partial(_agree, box, name, state["Id"])
        box.until(agree, f"ps is right of {name}")


def _agree(box: Box, name: str, container_id: str) -> bool:
    listed = box.ok("ps", "-a", "--filter", f"id={container_id}", "--format", "{{.State}}")
    return (listed == "running") == (box("exec", name, "true").returncode == 0)


def test_two_starts_at_once(begin: Any, box: Box) -> None:
    box.ok("create", "--network", "none", "--name", "web", *SLEEP)
    for _ in range(4):
        assert ended(*(begin("start", "web") for _ in range(3))) == [(0, "")] * 3
        box.until(
            lambda: len(_supervisors(box.state("web")["Id"])) == 1, "it has one; what helped to start it has ended"
        )
        box.ok("kill", "web")


def _supervisors(container_id: str) -> list[str]:
    command = f"minibox-supervisor\0{container_id[:12]}"
    return [pid for pid in filter(str.isdigit, os.listdir("/proc")) if _command(pid).startswith(command)]


def _command(pid: int | str) -> str:
    """Of a process, with a NUL behind each word; "" for a zombie."""
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""


def test_two_of_one_name_at_once(begin: Any, box: Box) -> None:
    words = ("run", "-d", "--network", "none", "--name", "web", *SLEEP)
    outcomes = ended(*(begin(*words) for _ in range(3)))
    assert sorted(status for status, _ in outcomes) == [0, 125, 125]
    assert all("is taken" in stderr for status, stderr in outcomes if status)


def test_started_while_it_is_removed(begin: Any, box: Box) -> None:
    for _ in range(5):
        box.ok("create", "--network", "none", "--name", "web", *SLEEP)
        (removed, _), (started, why) = ended(begin("rm", "-f", "web"), begin("start", "web"))
        assert removed == 0 and (started == 0 or "web" in why), why
        if started == 0 and "web" in box.states():
            is_true(box)
        box("rm", "-f", "web")


def test_stopped_and_killed_and_removed_at_once(begin: Any, box: Box) -> None:
    for _ in range(3):
        box.start("web", "exec sleep 100")
        outcomes = ended(begin("stop", "-t0", "web"), begin("kill", "web"), begin("restart", "-t0", "web"))
        assert outcomes[0][0] == outcomes[2][0] == 0, outcomes
        is_true(box)
        assert ended(begin("rm", "-f", "web"), begin("rm", "-f", "web")) == [(0, "")] * 2 or not box.states()
    assert box.left() == []


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.08, 0.13, 0.2, 0.3])
def test_stop_at_any_moment_of_a_back_off(delay_s: float, box: Box) -> None:
    box.start("web", "sleep 0.05; exit 1", "--restart", "always")
    time.sleep(delay_s)
    box.ok("stop", "-t0", "web")
    state = box.state("web")
    assert state["Status"] == "exited"
    time.sleep(0.3)
    assert box.state("web") == state


def test_renamed_while_it_ends_and_restarts(box: Box) -> None:
    container_id = box.start("first", "sleep 0.03; exit 1", "--restart", "on-failure:5")
    names = ["first", *(f"name{number}" for number in range(12))]
    for old, new in zip(names, names[1:], strict=False):
        box.ok("rename", old, new)
    assert box.ok("wait", names[-1]) == "1"
    assert (box.state(names[-1])["Id"], box.state(names[-1])["RestartCount"]) == (container_id, 5)


def test_whoever_waits_knows_the_status_of_one_that_is_removed(begin: Any, box: Box) -> None:
    box.start("web", WHEN_TOLD, "--rm")
    waiting = [begin("wait", "web") for _ in range(3)]
    all_watch(box, "web", *waiting)
    assert [each.communicate(timeout=30 * SLOWNESS)[0] for each in waiting] == ["7\n"] * 3
    assert box.left() == []


def test_minibox_killed_at_any_moment_of_a_start(begin: Any, box: Box) -> None:
    """Either there is a container that runs, or nothing of it does; and what there is can be removed."""
    for step in range(14):
        command = begin("run", "-d", "--network", "none", "--name", f"c{step}", *SLEEP)
        time.sleep(step * 0.007)
        command.kill()
        command.communicate()
    is_true(box)
    box.ok("rm", "-f", "-a")
    assert box.left() == []


def test_minibox_killed_at_any_moment_of_another_start(begin: Any, box: Box) -> None:
    """It costs no container."""
    box.ok("create", "--network", "none", "--name", "web", *SLEEP)
    for step in range(10):
        command = begin("start", "web")
        time.sleep(0.02 + step * 0.005)
        command.kill()
        command.communicate()
        is_true(box)
        box.ok("stop", "-t0", "web")
    box.ok("start", "web")


@pytest.mark.parametrize("rm", [False, True])
def test_its_supervisor_killed_when_it_has_just_ended(rm: bool, begin: Any, box: Box) -> None:
    """How it ended is on record before."""
    for _ in range(3):
        container_id = box.start("web", WHEN_TOLD, *(["--rm"] if rm else []))
        supervisor = os.pidfd_open(box.live("web")[1])
        waiting = begin("wait", "web")
        all_watch(box, "web", waiting)
        record = box.directory / "root/containers" / container_id / "exit"
        while not record.exists() and not select([supervisor], [], [], 0)[0]:  # which may have removed it, and ended
            pass
        try:
            signal.pidfd_send_signal(supervisor, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(supervisor)
        assert waiting.communicate(timeout=30 * SLOWNESS)[0] == "7\n"
        assert rm or box.state("web")["ExitCode"] == 7
        box.ok("rm", "-f", "web")
        assert box.left() == []


def test_its_supervisor_killed_in_a_back_off(box: Box) -> None:
    box.start("web", "exit 3", "--restart", "always")
    box.until(lambda: _is_stopped_in_a_back_off(box))
    os.kill(box.live("web")[1], signal.SIGKILL)
    assert box.ok("wait", "web") == "3"
    assert box.state("web")["Status"] == "exited"
    box.ok("start", "web")


def _is_stopped_in_a_back_off(box: Box) -> bool:
    """Stop its supervisor; if that isn't in a back-off just now, let it go on."""
    supervisor = box.live("web")[1]
    if supervisor == 0:  # its last one tidies up
        return False
    os.kill(supervisor, signal.SIGSTOP)
    box.until(lambda: _kernels_state(supervisor) in "TZ", "it has stopped")
    if _command(supervisor).startswith(DELAY_ARGV0):
        return True
    os.kill(supervisor, signal.SIGCONT)
    return False


def _kernels_state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]
