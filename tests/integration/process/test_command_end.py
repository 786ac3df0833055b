"""A command ends when its process ends, or when its user has gone: nothing that it leaves behind keeps it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import minibox as module
from tests.container_box import Box
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root")

END_S = 60 * SLOWNESS
HOLDER = "until [ -e /go ]; do sleep 0.1; done"  # it holds the streams until the test lets it go


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (f"({HOLDER}) & echo hi", "hi\n"),
        (f"({HOLDER}) & head -c 3000000 /dev/zero | tr '\\0' x", "x" * 3_000_000),
        ("yes & sleep 0.2", None),
    ],
    ids=["silent", "much", "endless"],
)
def test_what_an_exec_leaves_behind_does_not_keep_it(box: Box, tmp_path: Path, script: str, said: str | None) -> None:
    box.start("cc", "sleep 1000")
    with open(tmp_path / "out", "wb") as file:
        done = box("exec", "cc", "sh", "-c", script, stdout=file, stderr=file)
    assert done.returncode == 0
    assert said is None or (tmp_path / "out").read_text() == said
    box.tell("cc")


def test_neither_with_a_terminal(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    box.start("cc", "sleep 1000")
    words = [*minibox_command, "exec", "-t", "cc", "sh", "-c", f"(setsid sh -c '{HOLDER}') & echo hi"]
    main, side = pty.openpty()
    with subprocess.Popen(words, env=environment, stdin=side, stdout=side, stderr=side) as process:
        os.close(side)
        assert process.wait(END_S) == 0
    assert os.read(main, 100) == b"hi\r\n"
    os.close(main)
    box.tell("cc")


def test_a_command_in_a_sandbox_is_as_of_subprocess(api: None, tmp_path: Path) -> None:
    """Into a file it ends with its process; a pipe is read to its end, which who holds it decides."""
    with module.Sandbox("base", network="none") as box:
        with open(tmp_path / "out", "wb") as file:
            assert box.run(["sh", "-c", f"({HOLDER}) & echo hi"], stdout=file).returncode == 0
        assert (tmp_path / "out").read_bytes() == b"hi\n"
        with pytest.raises(module.TimeoutExpired):
            box.run(["sh", "-c", f"({HOLDER}) & echo hi"], capture_output=True, timeout=1)


# ---- the user has gone ---------------------------------------------------------------------------

SHELL = """
import os, subprocess, sys
with subprocess.Popen(sys.argv[1:]) as process:  # as a shell that isn't the leader of the session
    process.wait()
"""


@pytest.mark.parametrize("leader", [False, True], ids=["of another session", "leader"])
@pytest.mark.parametrize(
    "words",
    [
        ("run", "-it", "--stop-timeout", "0"),
        ("run", "-t", "--stop-timeout", "0"),
        ("run", "-it", "--init", "--stop-timeout", "0"),
    ],
    ids=" ".join,
)
def test_a_closed_terminal_ends_it(
    box: Box, minibox_command: list[str], environment: dict[str, str], words: tuple[str, ...], leader: bool
) -> None:
    """The shell above it is killed, and the window closed: no signal tells `minibox`, whose session it isn't."""
    more = ("--network", "none", "--name", "cc", "base", "sh", "-c", "echo ready; sleep 1000")
    main, side = pty.openpty()
    shell = subprocess.Popen(
        [sys.executable, "-c", SHELL, *minibox_command, *words, *more],
        env=environment, stdin=side, stdout=side, stderr=side, start_new_session=leader,
    )  # fmt: skip
    os.close(side)
    assert os.read(main, 100) == b"ready\r\n"
    shell.kill()
    shell.wait()
    os.close(main)
    box.until(lambda: box.states().get("cc", {}).get("Status") == "exited", "it has ended")


def test_a_closed_terminal_ends_an_exec(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    box.start("cc", "sleep 1000")
    main, side = pty.openpty()
    words = [
        *minibox_command,
        "exec",
        "-it",
        "cc",
        "sh",
        "-c",
        "trap 'touch /gone; exit' HUP; echo ready; sleep 1000 & wait",
    ]
    process = subprocess.Popen(words, env=environment, stdin=side, stdout=side, stderr=side)
    os.close(side)
    assert os.read(main, 100) == b"ready\r\n"
    os.close(main)
    assert process.wait(END_S) in (0, 129)
    assert box("exec", "cc", "ls", "/gone").returncode == 0
