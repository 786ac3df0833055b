"""rm -f, stop -t 0 and kill: nothing of a container survives, whatever its processes do against it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minibox.linux import cgroup
from tests.conftest import Run
from tests.container_box import until
from tests.probes import requires

pytestmark = [requires("root")]

#: Each writes "ready" when it is under way.
SCRIPTS = {
    "double forks": "(setsid sh -c '(setsid sleep 1000 &) ; sleep 1000' &); sleep 0.1; echo ready; exec sleep 1000",
    "deaf to signals": "trap '' TERM INT HUP QUIT; echo ready; while :; do sleep 1000; done",
    # Each dies as soon as it has made the next: a list of processes is out of date when it is read.
    "chain of forks": "f() { (f &) ; exit; }; (f &); echo ready; exec sleep 1000",
    # Who calls it needs no process more: there may be none.
    "fork bomb": "f() { f & f & wait; }; (f 2>/dev/null &); echo ready; exec sleep 1000",
    "stopped": "sleep 1000 & kill -STOP $!; echo ready; exec sleep 1000",
    "of another user": "adduser -D u 2>/dev/null; (setsid su -s /bin/sh nobody -c 'sleep 1000' &); sleep 0.2; echo ready; exec sleep 1000",
}
ENDS = {"rm -f": ("rm", "-f"), "stop -t 0": ("stop", "-t", "0"), "kill": ("kill",)}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_nothing_survives(minibox: Run, script: str) -> None:
    for words in ENDS.values():
        container_id = start(minibox, script)
        done = minibox(*words, "victim")
        assert (done.returncode, done.stderr) == (0, ""), words
        assert pids(container_id) == set(), words
        minibox("rm", "-f", "victim")
        assert cgroup.find(cgroup.detect(), f"minibox-{container_id}").directories == (), words


def test_nothing_survives_that_exec_has_started(minibox: Run) -> None:
    container_id = start(minibox, "echo ready; exec sleep 1000")
    until(lambda: names(container_id) == ["sleep"])
    first = pids(container_id)
    assert minibox("exec", "-d", "victim", "sh", "-c", "(setsid sleep 1000 &); exec sleep 1000").returncode == 0
    until(lambda: names(container_id) == ["sleep"] * 3)
    with reaped(pids(container_id) - first):
        assert minibox("stop", "-t", "0", "victim").returncode == 0
    assert pids(container_id) == set()
    assert minibox("rm", "victim").returncode == 0


@contextmanager
def reaped(orphans: set[int]) -> Iterator[None]:
    """Those of them that are our children, as orphans are init's elsewhere, are waited for when they end.

    The kernel doesn't let the first process of a pid namespace end before.
    """
    waits = [threading.Thread(target=reap, args=(pid,)) for pid in orphans]
    for each in waits:
        each.start()
    yield
    for each in waits:
        each.join()


def reap(pid: int) -> None:
    """Wait for the end of a process, which is ours when its parent has ended, or will never be."""
    while os.path.exists(f"/proc/{pid}"):
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            time.sleep(0.01)


def test_nothing_survives_in_a_frozen_container(minibox: Run) -> None:
    for words in ENDS.values():
        container_id = start(minibox, SCRIPTS["double forks"])
        assert minibox("pause", "victim").returncode == 0
        assert minibox(*words, "victim").returncode == 0, words
        assert pids(container_id) == set(), words
        minibox("rm", "-f", "victim")


def start(minibox: Run, script: str) -> str:
    """A container under way; with a limit, so that a fork bomb leaves the machine alone."""
    options = ("--name", "victim", "--network", "none", "--pids-limit", "60")
    container_id: str = minibox("run", "-d", *options, "base", "sh", "-c", script, check=True).stdout.strip()
    until(lambda: "ready" in minibox("logs", "victim").stdout, "it is under way")
    assert pids(container_id)
    return container_id


def names(container_id: str) -> list[str]:
    """Of the programs that its processes execute."""
    found = []
    for pid in pids(container_id):
        try:
            found.append(Path(f"/proc/{pid}/comm").read_text().strip())
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    return found


def pids(container_id: str) -> set[int]:
    return cgroup.find(cgroup.detect(), f"minibox-{container_id}").pids()
