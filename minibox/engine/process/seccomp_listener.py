"""Pass the listener of a seccomp filter on (OCI runtime spec, config-linux.md, "The Container Process State")."""

from __future__ import annotations

from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

from minibox.base.json_text import dumps
from minibox.errors import MiniboxError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SOCK_CLOEXEC = 0o2000000


def send_listener(path: str, metadata: str | None, pid: int, state: Mapping[str, Any], fd: int) -> None:
    """Send a listener to the socket that the Spec names.

    Args:
        path, metadata: its `listenerPath` and `listenerMetadata`; None for none.
        pid: of the process that loaded the filter.
        state: the container's OCI state.

    Raises:
        MiniboxError: it can't be sent.
    """
    message: dict[str, Any] = {"ociVersion": state["ociVersion"], "fds": ["seccompFd"], "pid": pid}
    if metadata is not None:
        message["metadata"] = metadata
    data = dumps({**message, "state": dict(state)}, "").encode()
    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        connection.connect(path)
        sent = connection.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, fd.to_bytes(4, "little"))])
        if sent < len(data):  # else send nothing more: the peer may be gone, and then even b"" fails
            connection.sendall(data[sent:])
    except OSError as error:
        raise MiniboxError(f"send the seccomp listener to {path}: {kernel_says(error)}") from error
    finally:
        connection.close()
