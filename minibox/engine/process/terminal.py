"""The user's terminal with ``-t``: raw while the container uses it, restored afterwards."""

from __future__ import annotations

import os
import termios
from fcntl import ioctl

from minibox.errors import UsageError, suppress

DEFAULT_SIZE = (24, 80)


class Terminal:
    """The terminal behind standard input, output or error; ``fd`` is -1 if there is none."""

    def __init__(self, interactive: bool) -> None:
        """Find the terminal.

        Raises:
            UsageError: ``interactive`` is set, but standard input isn't a terminal.
        """
        if interactive and not os.isatty(0):
            raise UsageError("the input device is not a terminal", "leave out -t, or run it in a terminal")
        self.fd = next((fd for fd in (0, 1, 2) if _isatty(fd)), -1)
        self._raw = interactive
        self._saved: list[int | list[bytes | int]] | None = None

    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        try:
            size = os.get_terminal_size(self.fd)
        except OSError:
            return DEFAULT_SIZE
        return size.lines or DEFAULT_SIZE[0], size.columns or DEFAULT_SIZE[1]

    def copy_size(self, pty_master: int) -> None:
        """Give the container's terminal the size of the user's. Its processes get SIGWINCH."""
        if self.fd >= 0:
            rows, columns = self.size()
            with suppress(OSError):  # it was closed just now
                ioctl(
                    pty_master,
                    termios.TIOCSWINSZ,
                    rows.to_bytes(2, "little") + columns.to_bytes(2, "little") + bytes(4),
                )

    def enter_raw(self) -> None:
        """Set raw mode, so that every key goes to the container, even Ctrl-C.

        Without ``-i``, leave the keys alone and only turn off output processing: the container's terminal has already
        processed the output, and line ends would get a second carriage return.
        """
        if self.fd < 0 or not (self._raw or _isatty(1)):
            return
        self._saved = termios.tcgetattr(self.fd)
        mode = termios.tcgetattr(self.fd)  # cfmakeraw(3)
        if not self._raw:
            mode[1] &= ~termios.OPOST
            termios.tcsetattr(self.fd, termios.TCSADRAIN, mode)
            return
        mode[0] &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
                     | termios.IGNCR | termios.ICRNL | termios.IXON)  # fmt: skip
        mode[1] &= ~termios.OPOST
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(self.fd, termios.TCSADRAIN, mode)

    def restore(self) -> None:
        """Restore the terminal."""
        if self._saved is not None:
            with suppress(termios.error):  # the user has closed the window
                termios.tcsetattr(self.fd, termios.TCSADRAIN, self._saved)
            self._saved = None

    def is_gone(self) -> bool:
        """Has the user closed the window? Every ioctl of a hung-up terminal fails."""
        return self.fd >= 0 and not _isatty(self.fd)


def _isatty(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False
