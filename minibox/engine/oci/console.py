"""Send the terminal's master end or a pidfd to a unix socket of the caller."""

from __future__ import annotations

import os
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

from minibox.base.sockets import check_peer
from minibox.errors import MiniboxError, kernel_says

SOCK_CLOEXEC = 0o2000000
PATH_BYTES_MAX = 107  # sun_path, unix(7)


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
