"""This process's terminal, streams and signals, lent to a command: `run` and `exec`, of minibox and of minibox-oci."""

from __future__ import annotations

from minibox.base.files import AutoClose
from minibox.engine.process.signals import SignalForwarder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.process.execution import Execution
    from minibox.engine.process.streams import DetachableInput, Streams
    from minibox.engine.process.terminal import Terminal


class Foreground(AutoClose):
    """What a command in the foreground uses of ours. Call `close` at the end, or use it in a ``with`` block.

    Attributes:
        signals: enter it before the start, so that no signal is lost.
        lost: why output couldn't be written; None if all was.
        detached: the user has detached, and the command runs on.
    """

    def __init__(
        self, *, tty: bool, interactive: bool, raw: bool | None = None, detaching: DetachableInput | None = None
    ) -> None:
        """
        Args:
            tty: the command gets a terminal.
            interactive: it gets our input.
            raw: our input must be a terminal, which gets raw mode; None: if ``interactive`` is set.
            detaching: watches for the detach keys.

        Raises:
            UsageError: our input is no terminal.
        """
        self._interactive, self._detaching = interactive, detaching
        self._terminal: Terminal | None = None
        self._streams: Streams | None = None
        self.signals = SignalForwarder()
        self.lost: OSError | None = None
        self.detached = False
        if tty:
            from minibox.engine.process.streams import Streams
            from minibox.engine.process.terminal import Terminal

            self._terminal = Terminal(interactive if raw is None else raw)
            self._streams = Streams(interactive=interactive, tty=True, owner=(0, 0), detaching=detaching)

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns of the terminal; None if the command gets none."""
        return self._terminal.size() if self._terminal else None

    def open_streams(self, owner: tuple[int, int]) -> tuple[int, int, int]:
        """Return the command's standard input, output and error.

        Args:
            owner: the host's uid and gid of the command, so that it can reopen them.
        """
        if self._streams is None:
            from minibox.engine.process.streams import Streams

            self._streams = Streams(interactive=self._interactive, tty=False, owner=owner)
        return self._streams.fds

    def begin(self, execution: Execution) -> None:
        """Begin to copy, once the command runs."""
        if self._terminal:
            self._terminal.enter_raw()
        if self._streams:
            self._streams.begin(execution.pty_master)

    def follow(self, execution: Execution, hang_up_s: int = -1, lifetime_s: float = 0) -> int:
        """Copy the streams and forward signals until the command has ended. Return its return code.

        Args:
            hang_up_s, lifetime_s: see `SignalForwarder.wait`.
        """
        init, terminal, detaching = execution.launched, self._terminal, self._detaching
        ended_fd = detaching.or_ended(init.pidfd) if detaching else init.pidfd
        self.signals.wait(ended_fd, init.send_signal, terminal, execution.pty_master, hang_up_s, lifetime_s)
        if detaching and detaching.has_detached():
            self.detached = True
            if self._streams:
                self._streams.abandon()
            return 0
        code = init.wait()
        if self._streams:
            self.lost = self._streams.finish()
        if terminal:
            terminal.restore()
        return code

    def close(self) -> None:
        """Stop copying, and restore the terminal."""
        if self._streams:
            self._streams.close()
        if self._detaching:
            self._detaching.close()
        if self._terminal:
            self._terminal.restore()
