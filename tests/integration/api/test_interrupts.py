"""An exception at any line of the caller's thread, as a signal handler raises it: nothing hangs, and nothing is left."""

from __future__ import annotations

import _thread
import asyncio
import os
import signal
import subprocess
import sys
import threading
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import minibox
from minibox.engine.host import interrupts
from minibox.engine.host.interrupts import uninterrupted
from minibox.linux.process import restarts_calls
from tests.leaks import SLOWNESS
from tests.leftovers import Remains
from tests.probes import requires

pytestmark = [requires("root"), pytest.mark.filterwarnings("ignore::ResourceWarning"),
              pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]  # fmt: skip

Line = tuple[str, int, int]  # file, number, and the time of how many
BEFORE = ("/record.py", "/api/options.py", "/config.py", "/base/directories.py")  # no container is made there
EACH_TIME = "/engine/host/interrupts.py"
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


@pytest.fixture
def raising() -> Iterator[None]:
    """SIGUSR1 and SIGUSR2 raise `Interrupted`."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.signal(number, interrupt) for number in numbers]
    yield
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)


@pytest.mark.parametrize("send", [
    lambda: signal.raise_signal(signal.SIGUSR1),
    lambda: interrupt_main(signal.SIGUSR1),
    lambda: in_thread(lambda: os.kill(os.getpid(), signal.SIGUSR1)),
    lambda: several(),
], ids=["raised", "simulated", "from a thread", "several"])  # fmt: skip
def test_what_is_cut_short_is_done_all_the_same(raising: None, send: Callable[[], object]) -> None:
    """What the handler raises comes after the work, whose every line is done, and the handlers are back."""
    done = []

    def work() -> None:
        for number in range(3):
            send()
            done.append(number)

    with pytest.raises(Interrupted):
        uninterrupted(work)
    assert done == [0, 1, 2]
    assert signal.getsignal(signal.SIGUSR1) is signal.getsignal(signal.SIGUSR2) is interrupt
    with pytest.raises(ZeroDivisionError):
        uninterrupted(lambda: 1 // 0)


def several() -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
        signal.raise_signal(number)


def in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_handlers_that_raise_nothing_run_once(raising: None) -> None:
    came: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: came.append(number))

    def work() -> list[int]:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)  # as a pending one, it is the same
        return list(came)

    assert uninterrupted(work) == []
    assert came == [signal.SIGUSR1]


def test_work_within_work(raising: None) -> None:
    done = []

    def inner() -> None:
        signal.raise_signal(signal.SIGUSR1)
        done.append("inner")

    def outer() -> None:
        uninterrupted(inner)
        done.append("outer")

    with pytest.raises(Interrupted):
        uninterrupted(outer)
    assert done == ["inner", "outer"]


def test_work_that_hangs_is_cut_short(raising: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "PATIENCE_S", 0.05)

    def work() -> None:
        signal.raise_signal(signal.SIGUSR1)
        threading.Event().wait(HANG_S)

    with pytest.raises(Interrupted):
        uninterrupted(work)
    assert signal.getsignal(signal.SIGUSR1) is interrupt


def test_whether_system_calls_go_on_stays_as_it_was(raising: None) -> None:
    signal.siginterrupt(signal.SIGUSR1, False)
    uninterrupted(lambda: None)
    assert restarts_calls(signal.SIGUSR1)
    assert not restarts_calls(signal.SIGUSR2)


def test_a_child_of_a_fork_meanwhile_has_the_handlers(raising: None) -> None:
    """Of another thread, which knows nothing of the work."""
    status = []

    def fork() -> None:
        pid = os.fork()
        if not pid:
            os._exit(signal.getsignal(signal.SIGUSR1) is interrupt)
        status.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    uninterrupted(lambda: uninterrupted(lambda: in_thread(fork)))
    assert status == [True]


def test_an_event_loop_hears_each_signal_once() -> None:
    """It is told by a descriptor, which is written when the signal comes."""

    async def work() -> int:
        loop, came, first = asyncio.get_running_loop(), list[bool](), asyncio.Event()

        def hear() -> None:
            came.append(True)
            first.set()

        loop.add_signal_handler(signal.SIGUSR1, hear)
        uninterrupted(lambda: signal.raise_signal(signal.SIGUSR1))
        await first.wait()
        await asyncio.sleep(0)
        loop.remove_signal_handler(signal.SIGUSR1)
        return len(came)

    assert asyncio.run(work()) == 1


def test_a_start_begins_no_thread(remains: Remains, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another processor it would take a tenth longer. (The only one removes the files afterwards.)"""
    begun: list[str] = []

    def noted(function: Callable[..., object], *rest: Any) -> int:
        begun.append(getattr(function, "__qualname__", ""))
        return start_new_thread(function, *rest)

    start_new_thread = _thread.start_new_thread
    for module in [each for name, each in sys.modules.items() if name.startswith("minibox.")]:
        if hasattr(module, "start_new_thread"):
            monkeypatch.setattr(module, "start_new_thread", noted)
    minibox.run("base", ["true"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert [name for name in begun if name != "_RemovalThread._run"] == []
