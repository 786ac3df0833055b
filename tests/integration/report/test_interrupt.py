"""Ctrl-C ends the commands that go on until it, at any moment: the kernel does it, so that Python can't lose it."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.container_box import Box
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root")

COMMANDS = (
    ("stats",),
    ("container", "stats", "web"),
    ("events",),
    ("system", "events"),
    ("logs", "-f", "web"),
    ("wait", "web"),
    ("wait", "--condition", "removed", "web"),
)


def begun(argv: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a command, and return once it has imported the module that parses the command line."""
    process = subprocess.Popen(
        argv, env={**environment, "PYTHONPROFILEIMPORTTIME": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr
    assert any(line.rstrip().endswith(b"minibox.cli.reader") for line in process.stderr)
    return process


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_kernel_ends_it(
    words: tuple[str, ...], box: Box, minibox_command: list[str], environment: dict[str, str]
) -> None:
    box.start("web", "exec sleep 100")
    with begun([*minibox_command, *words], environment) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(30 * SLOWNESS) == -signal.SIGINT
    assert box.state("web")["Status"] == "running"


def test_one_that_must_clean_up_does(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    box.start("web", "trap : TERM; echo ready; while :; do sleep 0.1; done")
    box.until_logged("web", "ready")
    with begun([*minibox_command, "stop", "-t", "-1", "web"], environment) as process:
        assert process.stderr
        assert any(b"minibox.engine.container.lifecycle" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        assert process.wait(30 * SLOWNESS) == 130


def test_an_ignored_one_stays_ignored(box: Box, minibox_command: list[str], environment: dict[str, str]) -> None:
    """As nohup(1) and a shell's jobs in the background want it."""
    box.start("web", "exec sleep 100")
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *minibox_command, "wait", "web"]
    with begun(ignoring, environment) as process:
        process.send_signal(signal.SIGINT)
        box.ok("kill", "web")
        assert process.wait(30 * SLOWNESS) == 0
