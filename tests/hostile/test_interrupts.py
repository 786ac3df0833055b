"""Exceptions out of signal handlers at random moments: nothing hangs, and nothing is left.

What a signal interrupts is any instruction, and not the beginning of a line: see tests/integration/api/test_interrupts.py.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import minibox
from minibox import aio
from tests.container_box import Box
from tests.leaks import SLOWNESS
from tests.leftovers import Remains
from tests.probes import requires

pytestmark = [requires("root"), pytest.mark.filterwarnings("ignore::ResourceWarning"),
              pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]  # fmt: skip

LONGEST_S = 0.04  # about what a container takes
WAIT_S = 60 * SLOWNESS
CHECKED_EVERY = 10


class Interrupted(BaseException):
    """As KeyboardInterrupt, which pytest takes for its own."""


def interrupt(*_: object) -> None:
    raise Interrupted


@pytest.fixture
def remains(api: None, state: Path) -> Iterator[Remains]:
    found = Remains(state)
    before = signal.signal(signal.SIGALRM, interrupt)
    yield found
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def run() -> None:
    minibox.run("base", ["echo", "on"], capture_output=True)


def sandbox() -> None:
    box = None
    try:
        with minibox.Sandbox("base") as box:
            box.run(["true"], capture_output=True)
            with box.popen(["cat"], stdin=subprocess.PIPE) as command:
                command.communicate(b"x")
    finally:
        if box:
            box.close()  # it was interrupted, too


@pytest.mark.parametrize("work", [run, sandbox])
def test_at_random_moments(remains: Remains, rounds: Callable[[int], range], work: Callable[[], None]) -> None:
    chance = random.Random(work.__name__)
    for number in rounds(40):
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, LONGEST_S))
                work()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:  # perhaps just before the timer was stopped
            pass
        if number % CHECKED_EVERY == CHECKED_EVERY - 1:
            remains.check(number)


def test_tasks_that_are_cancelled(remains: Remains, rounds: Callable[[int], range]) -> None:
    chance = random.Random("tasks")

    async def sandboxed() -> None:
        async with aio.Sandbox("base") as box:
            await box.run(["sleep", "1000"])

    async def cancelled() -> None:
        for work in (aio.run("base", ["sleep", "1000"]), sandboxed()):
            task = asyncio.ensure_future(work)
            await asyncio.sleep(chance.uniform(0, LONGEST_S))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    for _ in rounds(10):
        asyncio.run(cancelled())
    remains.check("all")


def test_a_command_whose_user_insists(
    box: Box, rounds: Callable[[int], range], minibox_command: list[str], environment: dict[str, str]
) -> None:
    """Three times Ctrl-C end a start, at whatever it is."""
    chance = random.Random("insists")
    for _ in rounds(8):
        words = [*minibox_command, "run", "--rm", "--network", "none", "base", "sleep", "1000"]
        with subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(chance.uniform(0.1, 0.3))
            deadline = time.monotonic() + WAIT_S
            while process.poll() is None:
                assert time.monotonic() < deadline
                process.send_signal(signal.SIGINT)
                time.sleep(0.005)
        box.ok("ps")
        assert box.left() == []
