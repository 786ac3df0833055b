"""Make a socket in a container's network for a process outside: a socket stays in the namespace it was made in."""

from __future__ import annotations

import os
import socket
from threading import Thread

from minibox.base.files import closing
from minibox.errors import MiniboxError, trying
from minibox.linux.process import set_network_namespace


def tcp_socket(pid: int) -> socket.socket:
    """Return an unconnected TCP socket (IPv4) in the network namespace of a process.

    Raises:
        MiniboxError: the process has ended, or the kernel refuses.
    """
    with trying(MiniboxError, f"enter the network of process {pid}"):
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    with closing(namespace), trying(MiniboxError, f"make a socket in the network of process {pid}"):
        return _by_thread(namespace) if os.geteuid() == 0 else _by_child(namespace, pid)


def _by_thread(namespace: int) -> socket.socket:
    """Make it in a new thread, because a thread may be unable to return to its namespace."""
    found: list[socket.socket | OSError] = []

    def make() -> None:
        try:
            set_network_namespace(namespace)
            found.append(socket.socket())
        except OSError as error:
            found.append(error)

    thread = Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


def _by_child(namespace: int, pid: int) -> socket.socket:
    """Make it in a child, because an ordinary user must enter the user namespace, which takes a single thread."""
    from minibox.engine.files import worker

    ours, its = socket.socketpair()
    with ours, its:
        worker.begin("make_socket", (namespace, its.fileno()), (), pid).result()
        _, fds, *_ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
        return socket.socket(fileno=fds[0])
