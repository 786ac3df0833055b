"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import os
from _socket import SO_PEERCRED, SOL_SOCKET

from minibox.errors import MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

CREDENTIALS_BYTES = 12  # struct ucred: pid, uid, gid


def check_peer(connected: socket, path: str, *, or_root: bool = False) -> None:
    """See that it is a process of the caller's user that listens, or has connected; SO_PEERCRED of unix(7).

    Args:
        or_root: one of root's is as good.

    Raises:
        MiniboxError: it is somebody else's.
    """
    credentials = connected.getsockopt(SOL_SOCKET, SO_PEERCRED, CREDENTIALS_BYTES)
    user = int.from_bytes(credentials[4:8], "little")
    if user != os.geteuid() and not (or_root and user == 0):
        raise MiniboxError(
            f"connect to {path}: a process of user {user} is at the other end", "see whose directory it is in"
        )
