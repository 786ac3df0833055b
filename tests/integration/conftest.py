"""Each test here is checked for what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.leaks import leak_check
from tests.living import Box
from tests.probes import requires_user

__all__ = ["leak_check"]


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
