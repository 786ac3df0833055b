"""Passing signals on to a foreground container, as docker run does."""

from __future__ import annotations

import os
from select import POLLERR, POLLHUP, POLLIN, poll
from stat import S_ISCHR
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    from minibox.engine.process.terminal import Terminal
else:
    import _signal  # signal's enumerations cost a start 2.6 ms

FORWARDED = tuple(
    getattr(_signal, name) for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH")
)
INSISTENCE = 3  # SIGINT or SIGTERM this often kills: process 1 ignores what it has no handler for


def block() -> None:
    """Leave the forwarded signals to the main thread, which waits for them: for threads that only copy."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, FORWARDED)


class Forwarding:
    """While this context lasts, signals to this process are the container's.

    Those that come in before the container runs are kept for it: who sends one mustn't have to know
    how far the start is. Only the main thread may set signal handlers: in another, the caller's own
    handlers stay.

    Attributes:
        forwarded: the signals that were passed on, in order.
        timed_out: the container was killed since its time was over.
    """

    def __init__(self) -> None:
        self._send: Callable[[int], None] | None = None
        self._terminal: Terminal | None = None
        self._pty_master = -1
        self._timeout_s = -1
        self._deadline = 0.0  # of time.monotonic; 0: none
        self._pending: list[int] = []
        self._before: dict[int, Any] = {}
        self.forwarded: list[int] = []
        self.timed_out = False
        self._asked = 0
        self._woken = self._wake = -1
        self._outer = -1  # the wakeup descriptor of who called us

    def __enter__(self) -> Forwarding:
        for number in FORWARDED:
            try:
                self._before[number] = _signal.signal(number, self._forward)
            except ValueError:
                return self  # not the main thread
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._outer = _signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        return self

    def wait(
        self,
        pidfd: int,
        send: Callable[[int], None],
        terminal: Terminal | None = None,
        pty_master: int = -1,
        timeout_s: int = -1,
        lifetime_s: float = 0,
    ) -> None:
        """Pass signals on until that process has ended; then they are the caller's again.

        Each signal also writes to a pipe that is polled here: one that comes in just before a
        plain waitpid(2) would be passed on only after it.

        Args:
            send: sends a signal to the container.
            terminal: the user's; when its window is closed, that is a SIGHUP, whether this process is in its session and
                gets one or not, and the container has ``timeout_s`` to end (-1: as long as it wants).
            pty_master: the container's, which gets the user's terminal's size at SIGWINCH.
            lifetime_s: then it is killed; 0: never.
        """
        self._send, self._terminal, self._pty_master, self._timeout_s = send, terminal, pty_master, timeout_s
        end = monotonic() + lifetime_s if lifetime_s else 0.0
        while self._pending:
            self._deliver(self._pending.pop(0))
        waiting = poll()
        waiting.register(pidfd, POLLIN)
        if self._woken >= 0:
            waiting.register(self._woken, POLLIN)
        watched = terminal.fd if terminal else -1
        if watched >= 0:
            waiting.register(watched, 0)  # POLLHUP and POLLERR are always told
        while True:
            next_s = min(filter(None, (self._deadline, end)), default=0.0)
            ready = [fd for fd, _ in waiting.poll(max(0, next_s - monotonic()) * 1000 if next_s else None)]
            if pidfd in ready:
                break
            if watched in ready:
                waiting.unregister(watched)
                self._hang_up()
            elif ready:
                data = os.read(self._woken, 512)
                if self._outer >= 0:
                    os.write(self._outer, data)
            elif next_s:
                self.timed_out = next_s == end
                self._deadline = end = 0.0
                send(_signal.SIGKILL)
        self._restore()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            if handler is not None:
                _signal.signal(number, handler)
        if self._woken >= 0:
            _signal.set_wakeup_fd(self._outer)
            os.close(self._woken)
            os.close(self._wake)
            self._woken = -1

    def _forward(self, number: int, _frame: object) -> None:
        self._asked += number in (_signal.SIGINT, _signal.SIGTERM)
        if self._send is not None:
            self._deliver(number)
        elif self._asked >= INSISTENCE:
            raise KeyboardInterrupt  # the start itself hangs
        else:
            self._pending.append(number)

    def _deliver(self, number: int) -> None:
        if number == _signal.SIGWINCH and self._terminal:
            self._terminal.copy_size(self._pty_master)
            return
        assert self._send
        number_sent = _signal.SIGKILL if self._asked >= INSISTENCE else number
        self.forwarded.append(number_sent)
        self._send(number_sent)
        if number == _signal.SIGHUP and self._timeout_s >= 0 and self._is_gone():
            self._deadline = monotonic() + self._timeout_s

    def _hang_up(self) -> None:
        """The user's terminal is gone: the kernel may have sent SIGHUP, or to others only."""
        if _signal.SIGHUP not in self.forwarded:
            self._deliver(_signal.SIGHUP)

    def _is_gone(self) -> bool:
        """Has the user closed the window that this process was started in?"""
        if self._terminal:
            return self._terminal.is_gone()
        return any(_is_hung_up(fd) for fd in (0, 1, 2))


def _is_hung_up(fd: int) -> bool:
    """Is it a terminal whose other end is closed? Those have a number, and no ioctl of theirs works."""
    waiting = poll()
    waiting.register(fd, 0)
    return any(event & POLLERR and event & POLLHUP for _, event in waiting.poll(0)) and S_ISCHR(os.fstat(fd).st_mode)
