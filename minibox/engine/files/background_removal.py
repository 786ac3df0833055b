"""What nobody has to wait for: files of containers that have ended, removed by one thread while the program goes on.

Whoever kills this process meanwhile leaves them to the next command, as always (`removal.collect`); at its end the
process waits for them.
"""

from __future__ import annotations

import os
from _queue import Empty, SimpleQueue
from _thread import LockType, allocate_lock, start_new_thread
from atexit import register

from minibox.engine.process.signals import block
from minibox.errors import MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

WAITING_MAX = 8  # with more, who comes does his own: the disk must not fill
IDLE_S = 0.05  # then the thread ends: a program without one can fork as it likes


class _Tidying:
    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._lock = allocate_lock()
        self.works = False

    def add(self, job: Callable[[], object]) -> None:
        with self._lock:
            try:
                if not self.works:
                    start_new_thread(self._run, (self._jobs, self._lock))
                    self.works = True
                if taken := self._jobs.qsize() < WAITING_MAX:
                    self._jobs.put(job)
            except RuntimeError:  # there can be no more threads
                taken = False
        if not taken:
            job()

    def _run(self, jobs: SimpleQueue[Callable[[], object]], lock: LockType) -> None:
        block()
        while True:
            try:
                jobs.get(timeout=IDLE_S)()
            except (MiniboxError, OSError):
                pass  # its claim is let go, and so the next command finds it
            except Empty:
                with lock:
                    if jobs.empty():
                        self.works = False
                        return

    def finish(self) -> None:
        with self._lock:
            if not self.works:
                return
            done = allocate_lock()
            done.acquire()
            self._jobs.put(done.release)
        done.acquire()

    def forked(self) -> None:
        """In a child by fork: what waits is its parent's."""
        self._begin()


_tidying = _Tidying()
os.register_at_fork(after_in_child=_tidying.forked)
register(_tidying.finish)


def later(job: Callable[[], object]) -> None:
    """Have ``job`` done soon, or now where too much waits; what it raises is nobody's."""
    _tidying.add(job)


def works() -> bool:
    """Is there a thread just now? It is ready for a fork of this process."""
    return _tidying.works


def finish() -> None:
    """Wait until all is done that waits."""
    _tidying.finish()
