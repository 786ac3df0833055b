"""Protect a piece of work from exceptions in signal handlers: the handlers run when the work has ended.

Between a system call and the line that records its result, Ctrl-C or the handler of an alarm can raise. Then nobody
would know what the call has made. Handlers don't run in a thread either, but a thread runs on another processor, whose
caches have nothing of it: that cost a tenth of a start.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock, get_ident, start_new_thread
from threading import main_thread
from time import monotonic
from typing import TypeVar

from minibox.errors import suppress
from minibox.linux.process import restarts_calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from types import FrameType
    from typing import Any
else:
    import _signal  # importing signal, with its enumerations, takes 2.6 ms

T = TypeVar("T")
PATIENCE_S = 10.0
NUMBERS = tuple(range(1, _signal.NSIG))


def uninterrupted(work: Callable[[], T]) -> T:
    """Call ``work`` completely or not at all, and return its value.

    A handler whose signal comes meanwhile runs when ``work`` has ended, and what it raises is raised here. If that takes
    longer than `PATIENCE_S`, the handler runs at once, and cuts ``work`` short if it raises. ``work`` must record what it
    makes in an object that the caller already has, instead of returning it.
    """
    if get_ident() != main_thread().ident:
        return work()
    held = _Held()
    try:
        held.begin()
        return work()
    finally:
        held.end()


class _Held:
    """Stands in for the program's signal handlers, from `begin` to `end`."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._restarting: list[int] = []
        self._came: dict[int, FrameType | None] = {}  # signals that wait for the end
        self._passes = False
        self._trace: Any = None
        self._lasts = allocate_lock()
        self._lasts.acquire()

    def begin(self) -> None:
        """Hold back the handlers, and tracing, which can raise at any line, too."""
        if trace := sys.gettrace():
            self._trace = trace
            sys.settrace(None)
        for number in NUMBERS:
            handler = _signal.getsignal(number)
            if callable(handler):
                if restarts_calls(number):
                    self._restarting.append(number)
                self.handlers[number] = handler
                with suppress(ValueError):  # no handler ever runs in this interpreter, which isn't the main one
                    _signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Be called as a handler."""
        if self._passes:
            self._came.pop(number, None)
            self.handlers[number](number, frame)
            return
        if not self._came:
            with suppress(RuntimeError):  # can't start a thread
                start_new_thread(self._remind, (monotonic() + PATIENCE_S,))
        self._came.setdefault(number, frame)

    def _remind(self, deadline: float) -> None:
        if not self._lasts.acquire(timeout=max(0.0, deadline - monotonic())):
            self._passes = True
            for number in tuple(self._came):
                _signal.pthread_kill(main_thread().ident or 0, number)  # it may be waiting in a system call

    def end(self) -> None:
        """Bring the handlers back, and run those whose signals came."""
        self._passes = True
        try:
            self.restore()
        except BaseException:  # raised by a handler that is back already
            self.restore()
            raise
        finally:
            self._lasts.release()
            self._deliver()

    def restore(self) -> None:
        for number, handler in self.handlers.items():
            with suppress(ValueError):
                _signal.signal(number, handler)
        for number in self._restarting:
            _signal.siginterrupt(number, False)
        if self._trace:
            sys.settrace(self._trace)

    def _deliver(self) -> None:
        if self._came:
            number = next(iter(self._came))
            try:
                self.handlers[number](number, self._came.pop(number))
            finally:
                self._deliver()


def _after_fork() -> None:
    """In the child of a fork that another thread made meanwhile, `end` is never called."""
    for number in NUMBERS:
        while isinstance(held := _signal.getsignal(number), _Held):
            held.restore()


os.register_at_fork(after_in_child=_after_fork)
