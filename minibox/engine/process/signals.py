"""Forward signals to a foreground container, as docker run does."""

from __future__ import annotations

import os
from select import POLLERR, POLLHUP, POLLIN, poll
from stat import S_ISCHR
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any

    from minibox.engine.process.terminal import Terminal
else:
    import _signal  # importing signal, with its enumerations, takes 2.6 ms

FORWARDED = tuple(
    getattr(_signal, name) for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH")
)
INSISTENCE = 3  # after so many SIGINTs or SIGTERMs send SIGKILL: process 1 ignores signals that it doesn't handle


def block() -> None:
    """Block the forwarded signals in this thread, which only copies: the main thread waits for them."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, FORWARDED)


class SignalForwarder:
    """Forward this process's signals to the container, within a ``with`` block.

    Signals that arrive before the container runs are delivered once it does, so that the sender needn't know how far
    the start is. Python only lets the main thread set signal handlers: in other threads the caller's handlers stay.

    Attributes:
        forwarded: the signals sent to the container, in order.
        timed_out: the container was killed because it ran too long.
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
        self._outer = -1  # the caller's wakeup descriptor

    def __enter__(self) -> SignalForwarder:
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
        """Forward signals until a process has ended, then give the caller its handlers back.

        Each signal also writes to a pipe that we poll. With a plain waitpid(2), a signal that arrives just before the
        call would be forwarded only after it.

        Args:
            pidfd: of the process.
            send: sends a signal to the container.
            terminal: the user's. If its window is closed, the container gets SIGHUP, even if this process doesn't, and
                has ``timeout_s`` to end (-1: no limit).
            pty_master: the container's. At SIGWINCH it gets the size of the user's terminal.
            lifetime_s: kill the container after this time; 0 for never.
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
            waiting.register(watched, 0)  # poll(2) always reports POLLHUP and POLLERR
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

    def __exit__(self, *_: object) -> None:
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
            raise KeyboardInterrupt  # the start hangs
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
        """Deliver SIGHUP for a closed terminal, unless the kernel has sent us one already."""
        if _signal.SIGHUP not in self.forwarded:
            self._deliver(_signal.SIGHUP)

    def _is_gone(self) -> bool:
        """Has the user closed the window in which this process was started?"""
        if self._terminal:
            return self._terminal.is_gone()
        return any(_is_hung_up(fd) for fd in (0, 1, 2))


def _is_hung_up(fd: int) -> bool:
    """Is it a terminal whose other end is closed? isatty(3) can't tell, because every ioctl of it fails."""
    waiting = poll()
    waiting.register(fd, 0)
    return any(event & POLLERR and event & POLLHUP for _, event in waiting.poll(0)) and S_ISCHR(os.fstat(fd).st_mode)
