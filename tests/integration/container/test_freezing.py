"""Who freezes a container for a while puts back what he found: commit, snapshots, pause and unpause beside each other."""

from __future__ import annotations

import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minibox import Sandbox
from minibox.engine.state.freezing import FOR_A_WHILE, group_of
from tests.conftest import Run, _environment
from tests.container_box import Box
from tests.probes import requires

pytestmark = requires("root")
#: What takes a while to be packed.
SCRIPT = "dd if=/dev/urandom of=/large bs=1M count=48 2> /dev/null; echo ready; exec sleep 600"


def says_paused(box: Box) -> bool:
    told = "(Paused)" in box.ok("ps", "--format", "{{.Status}}")
    assert told == group_of(box.state("cc")["Id"]).is_frozen()
    return told


@pytest.fixture
def large(box: Box) -> Box:
    box.start("cc", SCRIPT)
    box.until_logged("cc", "ready")
    return box


@contextmanager
def committing(box: Box, command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A commit that is under way: the container is frozen, for it or before."""
    expected = 0o600 if says_paused(box) else FOR_A_WHILE
    words = [*command, "commit", "cc", "image"]
    with subprocess.Popen(words, env=_environment(box.directory), text=True, stdout=subprocess.PIPE) as commit:
        mark = box.directory / "root/freezing" / box.state("cc")["Id"]
        box.until(lambda: commit.poll() is not None or (mark.exists() and mode(mark) == expected))
        box.until(lambda: commit.poll() is not None or group_of(mark.name).is_frozen())
        yield commit
        commit.kill()


def mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return 0


def test_one_that_is_paused_stays_so(box: Box) -> None:
    box.start("cc", "echo ready; exec sleep 600")
    box.ok("pause", "cc")
    box.ok("commit", "cc", "image")
    assert says_paused(box)
    box.ok("commit", "--pause=false", "cc", "image")
    box.ok("export", "cc", "-o", "/dev/null")
    assert says_paused(box)
    box.ok("unpause", "cc")
    box.ok("commit", "cc", "image")
    assert not says_paused(box)
    assert list((box.directory / "root/freezing").iterdir()) == []


def test_a_snapshot_leaves_a_paused_sandbox_paused(api: None, minibox: Run) -> None:
    with Sandbox("base", name="cc") as sandbox:
        minibox("pause", "cc", check=True)
        with sandbox.snapshot():
            assert group_of(sandbox.id).is_frozen()
        minibox("unpause", "cc", check=True)
        with sandbox.snapshot():
            pass
        assert not group_of(sandbox.id).is_frozen()


def test_pause_waits_for_a_commit(large: Box, minibox_command: list[str]) -> None:
    with committing(large, minibox_command) as commit:
        assert large.refused("unpause", "cc") == "container cc is not paused"
        assert commit.wait() == 0
    with committing(large, minibox_command) as commit:
        large.ok("pause", "cc")
        assert commit.wait() == 0
    assert says_paused(large)


def test_unpause_waits_for_a_commit(large: Box, minibox_command: list[str]) -> None:
    large.ok("pause", "cc")
    with committing(large, minibox_command) as commit:
        large.ok("unpause", "cc")
        assert commit.wait() == 0
    assert not says_paused(large)


def test_two_commits_at_once(large: Box, minibox_command: list[str]) -> None:
    with committing(large, minibox_command) as commit:
        large.ok("commit", "cc", "other")
        assert commit.wait() == 0
    assert not says_paused(large)


@pytest.mark.parametrize("then", [("ps",), ("pause", "cc"), ("commit", "cc", "again")])
def test_what_a_killed_commit_froze_goes_on(large: Box, minibox_command: list[str], then: tuple[str, ...]) -> None:
    with committing(large, minibox_command) as commit:
        commit.send_signal(signal.SIGKILL)
        commit.wait()
    assert group_of(large.state("cc")["Id"]).is_frozen()
    large.ok(*then)
    assert says_paused(large) == (then[0] == "pause")
