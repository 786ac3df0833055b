"""An exception at any line of the caller's thread, as a signal handler raises it: nothing hangs, and nothing is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import minibox
from minibox.engine.host.interrupts import uninterrupted
from tests.leaks import SLOWNESS
from tests.leftovers import Remains
from tests.probes import requires

pytestmark = [requires("root"), pytest.mark.filterwarnings("ignore::ResourceWarning"),
              pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]  # fmt: skip

Line = tuple[str, int, int]  # file, number, and the time of how many
BEFORE = ("/record.py", "/api/options.py", "/config.py", "/base/directories.py")  # no container is made there
EACH_TIME = "/engine/interrupts.py"
OURS = str(Path(minibox.__file__).parent)
HANG_S = int(60 * SLOWNESS)


class Interrupted(BaseException):
    """As KeyboardInterrupt, which pytest takes for its own."""


def interrupt(*_: object) -> None:
    raise Interrupted


class Lines:
    """Raises at a line of minibox's own, when this thread comes there for the first time; None: only notes them."""

    def __init__(self, at: Line | None) -> None:
        self._at = at
        self.seen: dict[Line, None] = {}

    def _here(self, frame: FrameType) -> Line:
        line = frame.f_code.co_filename.removeprefix(OURS), frame.f_lineno, 0
        while line[0] == EACH_TIME and line in self.seen:
            line = *line[:2], line[2] + 1
        return line

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(OURS) or path.removeprefix(OURS) in BEFORE:
            return None
        if event == "line":
            here = self._here(frame)
            if here == self._at and here not in self.seen:
                self.seen[here] = None
                raise Interrupted
            self.seen[here] = None
        return self._trace

    def __enter__(self) -> Lines:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)


@pytest.fixture
def remains(api: None, state: Path) -> Iterator[Remains]:
    found = Remains(state)
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(HANG_S)
    yield found
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def run() -> None:
    minibox.run("base", ["cat"], capture_output=True, input=b"x", text=True, timeout=30, output=100)


def sandbox() -> None:
    with minibox.Sandbox("base") as box:
        box.run(["true"], stderr=subprocess.DEVNULL)
        with box.popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as command:
            command.communicate(b"x")
        box.write_file("/x", b"x")
        box.read_file("/x")
        with box.snapshot() as frozen, frozen.sandbox():
            pass


def service() -> None:
    with minibox.Sandbox("base", ["sh", "-c", "echo on; exec sleep 1000"]) as box:
        box.wait_for(log="on")


def network() -> None:
    with minibox.Network() as net, minibox.Sandbox("base", network=net):
        pass


def function() -> None:
    add(1, 2)


@minibox.sandboxed
def add(one: int, other: int) -> int:
    return one + other


#: And the file whose lines are tried, "" for all.
CASES = {run: "", sandbox: "", service: "", network: "", function: "/api/sandboxed.py"}


@pytest.mark.parametrize("work", CASES, ids=lambda work: work.__name__)
def test_at_each_line(remains: Remains, work: Callable[[], None]) -> None:
    work()
    with Lines(None) as lines:
        work()
    for at in lines.seen:
        if not at[0].startswith(CASES[work]):
            continue
        signal.alarm(HANG_S)
        try:
            with Lines(at):
                work()
        except Interrupted:
            pass
        remains.check(at)


def test_what_is_cut_short_is_done_all_the_same(remains: Remains) -> None:
    """The work goes on when the handler raises, and is awaited."""
    done = []

    def work() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        time.sleep(0.2)
        done.append(True)

    signal.signal(signal.SIGALRM, interrupt)
    with pytest.raises(Interrupted):
        uninterrupted(work)
    assert done
    with pytest.raises(ZeroDivisionError):
        uninterrupted(lambda: 1 // 0)
