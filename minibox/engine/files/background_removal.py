"""Remove the files of ended containers in a background thread, so that the caller needn't wait.

If this process is killed, the next command removes them, as always (`collection.collect`). Before it exits, the process
waits for the thread.
"""

from __future__ import annotations

import os
import sys
from _queue import Empty, SimpleQueue
from _thread import LockType, allocate_lock, start_new_thread
from atexit import register

from minibox.engine.process.signals import block
from minibox.errors import MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

WAITING_MAX = 8  # beyond this the caller removes them itself, so that the disk doesn't fill up
IDLE_S = 0.05  # then the thread ends, since a process without threads can fork freely


class _RemovalThread:
    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._lock = allocate_lock()
        self.is_running = self._is_awaited = False

    def add(self, job: Callable[[], object]) -> None:
        with self._lock:
            try:
                if not self.is_running:
                    self._await_at_end()
                    start_new_thread(self._run, (self._jobs, self._lock))
                    self.is_running = True
                if taken := self._jobs.qsize() < WAITING_MAX:
                    self._jobs.put(job)
            except RuntimeError:  # can't start a thread
                taken = False
        if not taken:
            job()

    def _await_at_end(self) -> None:
        """Have a child of `multiprocessing` wait, too: at its end, what atexit has isn't called."""
        util = sys.modules.get("multiprocessing.util")
        if util and not self._is_awaited:
            self._is_awaited = True
            util.Finalize(None, self.finish, exitpriority=0)

    def _run(self, jobs: SimpleQueue[Callable[[], object]], lock: LockType) -> None:
        block()
        while True:
            try:
                jobs.get(timeout=IDLE_S)()
            except (MiniboxError, OSError):
                pass  # its claim is released, so the next command finds it
            except Empty:
                with lock:
                    if jobs.empty():
                        self.is_running = False
                        return

    def finish(self) -> None:
        with self._lock:
            if not self.is_running:
                return
            done = allocate_lock()
            done.acquire()
            self._jobs.put(done.release)
        done.acquire()

    def forked(self) -> None:
        """Reset in a forked child: the queued jobs are the parent's."""
        self._begin()


_removal = _RemovalThread()
os.register_at_fork(after_in_child=_removal.forked)
register(_removal.finish)


def later(job: Callable[[], object]) -> None:
    """Run ``job`` in the background, or now if the queue is full. Its errors are ignored in the background."""
    _removal.add(job)


def is_running() -> bool:
    """Return whether the thread exists; it doesn't get in the way of a fork."""
    return _removal.is_running


def finish() -> None:
    """Wait until all queued jobs are done."""
    _removal.finish()
