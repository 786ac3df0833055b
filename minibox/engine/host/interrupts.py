"""What an exception out of a signal handler mustn't cut short: a thread does it, in which no handler runs.

Between a system call and the line that notes what it has made there is always a moment in which Ctrl-C, or the handler
of an alarm, can raise. What it made is nobody's then.
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
    """Call ``work``, all of it or not at all; what it returned.

    Handlers run, and what they raise is raised here, but after ``work``; when that takes longer than `PATIENCE_S`, or
    another is raised, it goes on behind the caller's back. So what it makes is noted by ``work`` itself, in an object
    that the caller has already, and not returned.
    """
    return _Job(work).outcome() if get_ident() == main_thread().ident else work()


class _Job(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._turn = allocate_lock()  # who has it says whether it is done at all
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
        """Have it done, and wait; raises what it raised."""
        try:
            try:
                start_new_thread(self._run, ())
            except RuntimeError:  # there can be no more threads
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
            del error  # whose traceback has this frame

    def _settle(self) -> None:
        with self._turn:
            self._is_given_up = True
        if self._is_begun and not self._is_done:
            self._done.acquire(timeout=PATIENCE_S)
