"""End a container of this process when its time limit or its processor time limit is reached."""

from __future__ import annotations

import os
from _thread import allocate_lock, start_new_thread
from select import POLLIN, poll
from time import monotonic

from minibox.base.files import POLL_MOST_S
from minibox.engine.process.signals import block
from minibox.engine.verdict.end_kinds import CPU_TIME, WALL_TIME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_S = 0.005  # between two checks: how far a container can exceed its processor time, for each processor
NS_A_SECOND = 1e9


class TimeLimits:
    """A thread that sleeps until a limit may be reached, and then checks.

    The limits hold even if the calling program does something else meanwhile.
    """

    def __init__(
        self,
        pidfd: int,
        *,
        wall_s: float,
        cpu_s: float,
        cpu_used_ns: Callable[[], int | None],
        end: Callable[[str], None],
    ) -> None:
        """Start the thread.

        Args:
            pidfd: of the container's first process.
            wall_s, cpu_s: the limits; 0 for none.
            cpu_used_ns: returns the processor time of all its processes; None if unknown.
            end: called at most once, in the thread, with the limit that was reached.
        """
        self._pidfd = os.dup(pidfd)
        self._deadline = monotonic() + wall_s if wall_s else 0.0
        self._cpu_s, self._cpu_used_ns, self._end = cpu_s, cpu_used_ns, end
        self._running = allocate_lock()
        self._running.acquire()
        start_new_thread(self._run, ())

    def wait(self) -> None:
        """Wait for the thread, which stops when the container ends."""
        self._running.acquire()
        self._running.release()

    def _run(self) -> None:
        block()
        try:
            ended = poll()
            ended.register(self._pidfd, POLLIN)
            while not ended.poll(min(self._rest_s(), POLL_MOST_S) * 1000):
                if limit := self._reached():
                    self._end(limit)
                    return
        finally:
            os.close(self._pidfd)
            self._running.release()

    def _reached(self) -> str:
        if self._deadline and monotonic() >= self._deadline:
            return WALL_TIME
        return CPU_TIME if self._cpu_s and self._cpu_left_s() <= 0 else ""

    def _rest_s(self) -> float:
        """How long it takes at least until a limit is reached."""
        rests = []
        if self._deadline:
            rests.append(self._deadline - monotonic())
        if self._cpu_s:
            rests.append(max(LEAST_S, self._cpu_left_s() / (os.cpu_count() or 1)))
        return max(0.0, min(rests))

    def _cpu_left_s(self) -> float:
        return self._cpu_s - (self._cpu_used_ns() or 0) / NS_A_SECOND
