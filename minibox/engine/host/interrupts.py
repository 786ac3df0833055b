"""Protect a piece of work from exceptions in signal handlers, by doing it in a thread: handlers don't run there.

Between a system call and the line that records its result, Ctrl-C or the handler of an alarm can raise. Then nobody
would know what the call has made.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from threading import get_ident, main_thread
from typing import Generic, TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
PATIENCE_S = 10.0


def uninterrupted(work: Callable[[], T]) -> T:
    """Call ``work`` completely or not at all, and return its value.

    Handlers do run, and what they raise is raised here, but only after ``work`` has ended. If that takes longer than
    `PATIENCE_S`, or a second exception arrives, the exception is raised at once and ``work`` goes on in its thread. So
    ``work`` must record what it makes in an object that the caller already has, instead of returning it.
    """
    return _Job(work).outcome() if get_ident() == main_thread().ident else work()


class _Job(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._turn = allocate_lock()  # whoever holds it decides whether the work is done at all
        self._is_begun = self._is_done = self._is_given_up = False
        self._done = allocate_lock()
        self._done.acquire()
        self._result: list[T] = []
        self._error: BaseException | None = None

    def _run(self) -> None:
        with self._turn:
            if self._is_given_up or self._is_begun:
                return
            self._is_begun = True
        try:
            self._result.append(self._work())
        except BaseException as error:
            self._error = error
        finally:
            self._is_done = True
            self._done.release()

    def outcome(self) -> T:
        """Do the work, wait for it, and raise what it raised."""
        try:
            try:
                start_new_thread(self._run, ())
            except RuntimeError:  # can't start a thread
                self._run()
            self._done.acquire()
        except BaseException:
            self._settle()
            raise
        error, self._error = self._error, None
        try:
            if error:
                raise error
            return self._result.pop()
        finally:
            del error  # its traceback contains this frame

    def _settle(self) -> None:
        with self._turn:
            self._is_given_up = True
        if self._is_begun and not self._is_done:
            self._done.acquire(timeout=PATIENCE_S)
