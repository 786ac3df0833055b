"""The socket where a container's supervisor accepts clients such as `attach`."""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_SEQPACKET, socket

from minibox.errors import MiniboxError, kernel_says, suppress

SOCK_CLOEXEC = 0o2000000
BACKLOG = 16


def socket_path(runroot: str, container_id: str) -> str:
    """The path of the socket."""
    return f"{runroot}/attach/{container_id}"


def listen(path: str) -> int:
    """Listen at ``path``, which may be longer than a socket address can hold. Return the descriptor."""
    directory, name = os.path.split(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    with suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    at = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{at}/{name}")
        listener.listen(BACKLOG)
        return listener.detach()
    except OSError as error:
        listener.close()
        raise MiniboxError(f"listen at {path}: {kernel_says(error)}") from error
    finally:
        os.close(at)
