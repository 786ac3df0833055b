"""Check who is at the other end of a Unix socket."""

from __future__ import annotations

import os
from _socket import SO_PEERCRED, SOL_SOCKET

from minibox.errors import MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

CREDENTIALS_BYTES = 12  # struct ucred: pid, uid, gid


def check_peer(connected: socket, path: str, *, or_root: bool = False) -> None:
    """Check that the process at the other end belongs to the same user; SO_PEERCRED in unix(7).

    Args:
        or_root: accept a process of root, too.

    Raises:
        MiniboxError: it belongs to another user.
    """
    credentials = connected.getsockopt(SOL_SOCKET, SO_PEERCRED, CREDENTIALS_BYTES)
    user = int.from_bytes(credentials[4:8], "little")
    if user != os.geteuid() and not (or_root and user == 0):
        raise MiniboxError(
            f"connect to {path}: a process of user {user} is at the other end", "check who owns the socket's directory"
        )
