"""Detached containers end without Python where that is possible, and leave nothing however it goes on."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from minibox.base.files import wait_readable
from minibox.engine.state.live_file import Live, parse
from tests.conftest import _runner
from tests.container_box import WAIT_S, Box, has_pidfd_of
from tests.probes import requires, requires_user

GATE = "read line </shared/gate; exit 7"
OWN = "import sys; sys.executable = sys.argv.pop(1); from minibox.cli.main import program; program()"


class Ends:
    """Containers that end when they are told to.

    Attributes:
        box: the command, whose supervisors start a wrapper in place of Python, which notes that it was started.
        gate: the FIFO that they read from.
    """

    def __init__(self, state: Path, environment: dict[str, str], place: Path) -> None:
        self.place = place
        self.gate, self._started = place / "gate", place / "started"
        os.mkfifo(self.gate)
        self.gate.chmod(0o644)
        self._started.touch()
        self._started.chmod(0o666)
        wrapper = place / "python"
        wrapper.write_text(f'#!/bin/sh\necho "$*" >>{self._started}\nexec {sys.executable} "$@"\n')
        wrapper.chmod(0o755)
        self.box = Box(_runner([sys.executable, "-c", OWN, str(wrapper)], environment), state)

    def start(self, *options: str, network: str = "none", script: str = GATE, rm: bool = True) -> str:
        """Start one; return its id."""
        shared = ("-v", f"{self.place}:/shared:ro", "--network", network, *(["--rm"] if rm else []))
        return self.box.ok("run", "-d", *shared, *options, "base", "sh", "-c", script)

    def end(self) -> None:
        """Tell all of them, and wait until nothing of them is left."""
        self.gate.write_bytes(b"")
        self.until_gone()

    def until_gone(self) -> None:
        self.box.until(lambda: not self.box.left(), "they are gone")

    @property
    def python_starts(self) -> int:
        return len(self._started.read_text().splitlines())

    def events(self, container_id: str) -> list[dict[str, Any]]:
        """What was told of a container's end."""
        lines = (self.box.directory / "run/events").read_text().splitlines()
        found = [event for event in map(json.loads, lines) if event["Actor"]["ID"] == container_id]
        return [event for event in found if event["Action"] in ("oom", "die", "destroy")]


@pytest.fixture
def ends(box: Box, state: Path, environment: dict[str, str], tmp_path: Path) -> Ends:
    return Ends(state, environment, tmp_path)


def told(ends: Ends, container_id: str) -> list[tuple[str, str, str | None]]:
    """Action, name and exit status of what was told of a container's end."""
    attributes = [(event["Action"], event["Actor"]["Attributes"]) for event in ends.events(container_id)]
    return [(action, each["name"], each.get("exitCode")) for action, each in attributes]


def live_of(ends: Ends, container_id: str) -> Live:
    return parse((ends.box.directory / "root/live" / container_id).read_bytes(), container_id)


@requires("root")
@pytest.mark.parametrize("options", [("none",), ("bridge",), ("bridge", "-p", "127.0.0.1::80", "--name", "own")])
def test_no_python(ends: Ends, options: tuple[str, ...]) -> None:
    network, *more = options
    container_id = ends.start(
        "--label", 'who=é"', *more, network=network, script=f"mkdir -p /a/b; ln -s / /a/b/c; {GATE}"
    )
    name = ends.box.state("own" if "own" in more else next(iter(ends.box.states())))["Name"]
    ends.end()
    assert ends.python_starts == 0
    assert told(ends, container_id) == [("die", name, "7"), ("destroy", name, None)]
    died, destroyed = ends.events(container_id)
    assert died["Actor"]["Attributes"]["who"] == destroyed["Actor"]["Attributes"]["who"] == 'é"'
    assert died["timeNano"] <= destroyed["timeNano"]


@requires("root")
def test_no_python_for_one_that_is_kept(ends: Ends) -> None:
    """Its state is as Python would have written it."""
    by_c, by_python = (
        ends.box.start(name, GATE, "-v", f"{ends.place}:/shared:ro", "-m", "64m") for name in ("kept", "python")
    )
    ends.box.ok("rename", "python", "renamed")
    for times in (1, 2):
        ends.gate.write_bytes(b"")
        ends.box.until(lambda: {each["Status"] for each in ends.box.states().values()} == {"exited"}, "they have ended")
        ends.box.until(lambda: not list((ends.box.directory / "root/live").iterdir()), "nobody looks after them")
        assert ends.python_starts == 1
        found, other = ends.box.state("kept"), ends.box.state("renamed")
        assert set(found) == set(other)
        assert all(type(found[name]) is type(other[name]) for name in found)
        alike = (
            "Status",
            "Pid",
            "ExitCode",
            "Signal",
            "TimedOut",
            "OOMKilled",
            "OOMKills",
            "Refused",
            "DiskFull",
            "LogLost",
        )
        assert {name: found[name] for name in alike} == {name: other[name] for name in alike}
        assert abs(found["Finished"] - other["Finished"]) < WAIT_S
        assert [(action, status) for action, _, status in told(ends, by_c)] == [("die", "7")] * times
        assert "with exit status 7" in ends.box.ok("why", "kept")
        if times == 1:
            ends.box.ok("start", "kept")
    assert told(ends, by_python) == [("die", "renamed", "7")]


@requires("root")
def test_no_python_for_one_that_is_kept_and_stopped(ends: Ends) -> None:
    container_id = ends.start("--name", "web", rm=False)
    ends.box.ok("stop", "-t0", "web")
    assert (ends.box.state("web")["Status"], ends.box.state("web")["ExitCode"]) == ("exited", 137)
    assert told(ends, container_id) == [("die", "web", "137")]
    ends.box.ok("restart", "-t0", "web")
    ends.box.ok("stop", "-t0", "web")
    assert told(ends, container_id) == [("die", "web", "137")] * 2
    assert ends.python_starts == 0


@requires("root")
def test_many_at_once(ends: Ends, minibox_command: list[str], environment: dict[str, str]) -> None:
    ids = [ends.start(network="bridge" if number % 2 else "none") for number in range(50)]
    waits = [
        subprocess.Popen([*minibox_command, "wait", each], env=environment, stdout=subprocess.PIPE) for each in ids[:4]
    ]
    for container_id, wait in zip(ids, waits):
        ends.box.until(partial(has_pidfd_of, live_of(ends, container_id).pid, wait.pid), "it is waited for")
    ends.end()
    assert ends.python_starts == 0
    assert [wait.communicate(timeout=WAIT_S)[0] for wait in waits] == [b"7\n"] * len(waits)
    for container_id in ids:
        assert [(action, status) for action, _, status in told(ends, container_id)] == [("die", "7"), ("destroy", None)]


# ---- what C leaves to Python ---------------------------------------------------------------------


def rename(ends: Ends, container_id: str) -> None:
    ends.box.ok("rename", container_id, "web")


def update(ends: Ends, container_id: str) -> None:
    ends.box.ok("update", "--memory", "64m", container_id)


def cgroup_below(ends: Ends, container_id: str) -> None:
    (next(Path("/sys/fs/cgroup").glob(f"**/minibox-{container_id}")) / "below").mkdir()


def pause(ends: Ends, container_id: str) -> None:
    ends.box.ok("pause", container_id)
    ends.box.ok("unpause", container_id)


def damage(ends: Ends, container_id: str) -> None:
    directory = ends.box.directory / "root/containers" / container_id
    (directory / "state.json").rename(directory / "old")
    (directory / "state.json").write_bytes((directory / "old").read_bytes())


@requires("root")
@pytest.mark.parametrize("meddle", [rename, update, cgroup_below, pause, damage])
def test_python_ends_what_was_changed(ends: Ends, meddle: Callable[[Ends, str], None]) -> None:
    container_id = ends.start()
    other = ends.start()
    meddle(ends, container_id)
    name = ends.box.ok("inspect", "--format", "{{.Name}}", container_id).strip("/")
    ends.end()
    assert ends.python_starts == 1, "of the other one, nothing was changed"
    assert told(ends, container_id) == [("die", name, "7"), ("destroy", name, None)]
    assert [action for action, *_ in told(ends, other)] == ["die", "destroy"]


@requires("root")
def test_python_ends_what_was_stopped(ends: Ends) -> None:
    container_id = ends.start("--name", "web", "--stop-signal", "KILL")
    ends.box.ok("restart", "-t0", "web")
    ends.box.ok("stop", "-t0", "web")
    ends.until_gone()
    assert [(action, status) for action, _, status in told(ends, container_id)] == [
        ("die", "137"), ("die", "137"), ("destroy", None)]  # fmt: skip


@requires("root")
def test_names_on_a_network(ends: Ends) -> None:
    """They and the address are free again, whoever does it."""
    ends.box.ok("network", "create", "ends")
    container_id = ends.start("--name", "one", network="ends")
    assert files_with(ends, container_id)
    ends.end()
    assert files_with(ends, container_id) == []
    ends.box.ok("network", "rm", "ends")


@requires("root")
def test_python_removes_what_resists(ends: Ends) -> None:
    """A directory deeper than C goes, beside a file that it removes."""
    deep = "d=/; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do d=$d/a/b; done; mkdir -p $d; touch /x"
    container_id = ends.start(script=f"{deep}; {GATE}")
    ends.end()
    assert ends.python_starts == 1
    assert [(action, status) for action, _, status in told(ends, container_id)] == [("die", "7"), ("destroy", None)]


@requires("root")
def test_out_of_memory(ends: Ends) -> None:
    container_id = ends.start("-m", "32m", script="head -c 64m /dev/zero | tail; exit 3")
    ends.until_gone()
    assert [(action, status) for action, _, status in told(ends, container_id)] == [
        ("oom", "3"), ("die", "3"), ("destroy", None)]  # fmt: skip


@requires_user
def test_of_an_ordinary_user(user_box: Box) -> None:
    """Files of other ids are left to Python, in a user namespace."""
    user_box.ok("run", "-d", "--rm", "--network", "none", "base", "true")
    user_box.ok("run", "-d", "--rm", "--network", "none", "base", "sh", "-c", "mkdir /d; touch /d/f; chown -R 5:5 /d")
    user_box.until(lambda: not user_box.left(), "they are gone")


# ---- killed in the middle of it --------------------------------------------------------------------


@requires("root", "command:strace")
@pytest.mark.parametrize(("rm", "part"), [(True, 1), (True, 2), (False, 3)])
def test_its_supervisor_killed_at_each_step(ends: Ends, rm: bool, part: int) -> None:
    """By its calls, of which there are some 75: a sample of them."""
    for call in sorted(random.Random(part).sample(range(10, 76), 5)):
        container_id = ends.start("--name", "web", network="bridge", rm=rm)
        supervisor = live_of(ends, container_id).supervisor
        held = os.pidfd_open(supervisor)
        inject = [
            "strace",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            f"inject=all:signal=KILL:when={call}",
            "-p",
            str(supervisor),
        ]
        with subprocess.Popen(inject) as tracer:
            ends.box.until(partial(is_traced, supervisor, tracer.pid), "it is traced")
            ends.gate.write_bytes(b"")
            tracer.wait(WAIT_S)
        assert wait_readable(held, WAIT_S)
        os.close(held)
        live = ends.box.directory / "root/live" / container_id
        noted = parse(live.read_bytes(), str(live)).status if live.exists() else 7
        assert ends.box.ok("ps", "--quiet") == ""
        if not rm:
            state = ends.box.state("web")
            assert (state["Status"], state["ExitCode"]) in [
                ("exited", 7),
                *([("exited", 137)] if noted != 7 else []),
            ], call
            ends.box.ok("rm", "web")
        assert ends.box.left() == [] == files_with(ends, container_id)
        codes = [status for action, _, status in told(ends, container_id) if action == "die"]
        assert codes and set(codes) <= ({"7"} if noted == 7 else {"7", "137"}), call


def is_traced(pid: int, by: int) -> bool:
    return f"TracerPid:\t{by}" in Path(f"/proc/{pid}/status").read_text()


def files_with(ends: Ends, container_id: str) -> list[Path]:
    """What has a container's id, as its name or as a link's target, in the state of networks."""
    found = (ends.box.directory / "run/network").rglob("*")
    return [
        path for path in found if path.name == container_id or (path.is_symlink() and os.readlink(path) == container_id)
    ]
