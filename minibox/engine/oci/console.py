"""What is sent to the caller by a unix socket of his: the terminal's master end, or a pidfd."""

from __future__ import annotations

import os
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

from minibox.base.sockets import check_peer
from minibox.errors import MiniboxError, kernel_says

SOCK_CLOEXEC = 0o2000000
PATH_BYTES_MAX = 107  # sun_path, unix(7)


class Receiver:
    """A connection to a socket of the caller's; it is made before the container, so that none is made in vain."""

    def __init__(self, path: str) -> None:
        """Connect.

        Raises:
            MiniboxError: nobody listens there, or somebody else does.
        """
        self._socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            self._socket.connect(path if len(os.fsencode(path)) <= PATH_BYTES_MAX else _short(path))
            check_peer(self._socket, path, or_root=True)  # what is sent is all that the container reads and writes
        except OSError as error:
            self._socket.close()
            raise MiniboxError(f"connect to {path}: {kernel_says(error)}") from error
        except MiniboxError:
            self._socket.close()
            raise

    def send(self, name: str, fd: int) -> None:
        """Send a descriptor, and a name for it."""
        self._socket.sendmsg([name.encode()], [(SOL_SOCKET, SCM_RIGHTS, fd.to_bytes(4, "little"))])

    def close(self) -> None:
        self._socket.close()


def _short(path: str) -> str:
    """A name of the socket for one whose own is too long; the descriptor goes with this process."""
    return f"/proc/self/fd/{os.open(path, os.O_PATH | os.O_CLOEXEC)}"
