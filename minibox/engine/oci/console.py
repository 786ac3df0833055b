"""Give the terminal's master end, the pidfd and the pid to the caller: by unix sockets and a file."""

from __future__ import annotations

import os
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

from minibox.base.files import replace_file
from minibox.base.sockets import check_peer
from minibox.errors import MiniboxError, UsageError, kernel_says, trying

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.process.execution import Execution

SOCK_CLOEXEC = 0o2000000
PATH_BYTES_MAX = 107  # sun_path, unix(7)
MASTER_NAME = "/dev/pts/ptmx"


def check_console(terminal: bool, detach: bool, console_socket: str) -> None:
    """
    Raises:
        UsageError: nobody would get the terminal, or there is none for the socket.
    """
    if terminal and detach and not console_socket:
        raise UsageError("cannot allocate tty if minibox-oci will detach without setting console socket")
    if console_socket and not (terminal and detach):
        raise UsageError("cannot use console socket if minibox-oci will not detach or allocate tty")


class Receivers:
    """The caller's sockets for the terminal and the pidfd, and its file for the pid; "" for none."""

    def __init__(self, console_socket: str, pidfd_socket: str, pid_file: str) -> None:
        """Connect. Raises as `Receiver`."""
        self._console, self._pidfd, self._pid_file = console_socket, pidfd_socket, pid_file
        self._by_path = {path: Receiver(path) for path in (console_socket, pidfd_socket) if path}

    def hand_over(self, execution: Execution) -> None:
        """Give them to the caller.

        Raises:
            MiniboxError: the pid can't be written.
        """
        assert execution.init
        if self._console:
            self._by_path[self._console].send(MASTER_NAME, execution.pty_master)
        if self._pidfd:
            self._by_path[self._pidfd].send("pidfd", execution.init.pidfd)
        if self._pid_file:
            with trying(MiniboxError, f"write the pid file {self._pid_file}"):
                replace_file(self._pid_file, b"%d" % execution.pid, mode=0o644)

    def close(self) -> None:
        for receiver in self._by_path.values():
            receiver.close()


class Receiver:
    """A connection to a socket of the caller, opened before the container is made, so that a failure costs nothing."""

    def __init__(self, path: str) -> None:
        """Connect.

        Raises:
            MiniboxError: nobody listens there, or another user does.
        """
        self._socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            self._socket.connect(path if len(os.fsencode(path)) <= PATH_BYTES_MAX else _short(path))
            check_peer(self._socket, path, or_root=True)  # the descriptor carries all the container's input and output
        except OSError as error:
            self._socket.close()
            raise MiniboxError(f"connect to {path}: {kernel_says(error)}") from error
        except MiniboxError:
            self._socket.close()
            raise

    def send(self, name: str, fd: int) -> None:
        """Send a descriptor with a name."""
        self._socket.sendmsg([name.encode()], [(SOL_SOCKET, SCM_RIGHTS, fd.to_bytes(4, "little"))])

    def close(self) -> None:
        self._socket.close()


def _short(path: str) -> str:
    """Return a short name for a socket whose path is too long; the descriptor is closed when this process ends."""
    return f"/proc/self/fd/{os.open(path, os.O_PATH | os.O_CLOEXEC)}"
