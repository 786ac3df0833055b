"""Each test here is checked for what it leaves behind."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.container_box import Box
from tests.leaks import SLOWNESS, leak_check
from tests.oci_runtime import runtime
from tests.probes import requires_user
from tests.storage_places import minibox_here, place, root, storage

__all__ = ["leak_check", "minibox_here", "place", "root", "runtime", "storage"]


@pytest.fixture
def box(minibox: Run, state: Path) -> Iterator[Box]:
    """The command, and containers that outlive it; they go with the test."""
    yield from _box(minibox, state)


@pytest.fixture
def user_box(minibox_user: Run, user_state: Path) -> Iterator[Box]:
    """As `box`, for the ordinary user; use with `requires_user`."""
    yield from _box(minibox_user, user_state)


@pytest.fixture(params=["root", pytest.param("user", marks=requires_user)])
def any_box(request: pytest.FixtureRequest, minibox: Run, minibox_user: Run) -> Box:
    """Both, one after the other."""
    found: Box = request.getfixturevalue("box" if request.param == "root" else "user_box")
    return found


def _box(command: Run, directory: Path) -> Iterator[Box]:
    box = Box(command, directory)
    yield box
    done = command("rm", "-f", "-a")
    assert done.returncode == 0, done.stderr
    assert box.left() == []


@pytest.fixture
def orphans() -> None:
    """What the test's children leave comes to the test, which reaps it at its end, as init would (`leak_check`)."""


@pytest.fixture
def terminal(minibox: Run, minibox_command: list[str], environment: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """``terminal("attach", "web")``: a command in a terminal of its own; killed at the end of the test."""
    pexpect = pytest.importorskip("pexpect")
    started = []

    def start(*words: str, size: tuple[int, int] = (24, 80)) -> Any:
        argv = [*minibox_command, *words]
        child = pexpect.spawn(
            argv[0], argv[1:], env=environment, dimensions=size, timeout=30 * SLOWNESS, encoding="utf-8"
        )
        child.delaybeforesend = None
        started.append(child)
        return child

    yield start
    for child in started:
        if child.isalive():
            child.kill(signal.SIGKILL)
            child.wait()  # close() waits a tenth of a second, and then fails
        child.close()
    minibox("ps")  # the next command collects what a killed one leaves
