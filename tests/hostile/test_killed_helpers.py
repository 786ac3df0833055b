"""The helpers of a command are killed at random moments of a start: the command ends, and nothing of it is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.container_box import Box
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root")

WAIT_S = 30 * SLOWNESS
HELPERS = ("minibox-supervi", "minibox-launche")  # as /proc has their names
START_S = 0.03  # what happens after a helper is there, about
COMMANDS = {
    "run -d": ("run", "-d", "--network", "none", "--name", "cc", "base", "sleep", "1000"),
    "run": ("run", "--network", "none", "--name", "cc", "base", "true"),
    "exec": ("exec", "host", "true"),
    "start": ("start", "made"),
}


def helpers(parent: int) -> list[int]:
    """Of a process, those that are there."""
    found = []
    try:
        pids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except OSError:
        return []
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() in HELPERS:
                found.append(int(pid))
        except OSError:
            pass
    return found


def attack(process: subprocess.Popen[bytes], delay_s: float) -> None:
    """Kill a helper of a process, as soon as it has been there for that long."""
    while process.poll() is None:
        if found := helpers(process.pid):
            time.sleep(delay_s)
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            return


@pytest.mark.parametrize("command", COMMANDS)
def test_a_helper_is_killed(
    box: Box, rounds: Callable[[int], range], minibox_command: list[str], environment: dict[str, str], command: str
) -> None:
    chance = random.Random(command)
    box.start("host", "sleep 1000")
    box.ok("create", "--network", "none", "--name", "made", "base", "sleep", "1000")
    for _ in rounds(6):
        with subprocess.Popen(
            [*minibox_command, *COMMANDS[command]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            attack(process, chance.uniform(0, START_S))
            process.wait(WAIT_S)
        box("rm", "-f", "cc")
        box("stop", "-t", "0", "made")
        assert {state["Name"] for state in box.states().values()} == {"host", "made"}
    assert box.ok("exec", "host", "echo", "on") == "on"
    box.ok("start", "made")
