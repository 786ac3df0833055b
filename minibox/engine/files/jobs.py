"""Jobs that a process does inside a running container, as root of its user namespace; `engine.files.worker` starts it.

They need a process because a thread can't enter a user namespace. A job's arguments are descriptors and values that
marshal can encode; it shares nothing else with the caller.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from minibox.base.files import closing, open_regular
from minibox.engine.files.tar_copy import pack, receive
from minibox.linux.files import open_in_root, read_in_root
from minibox.linux.process import set_network_namespace

REPLACE = os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
CREATE = REPLACE | os.O_CREAT
CHUNK_BYTES = 1 << 20


def write(fds: Sequence[int], path: str, mode: int, owner: tuple[int, int]) -> None:
    """Copy a pipe's data to a file, and replace an existing file in place."""
    root_fd, data_fd = fds
    try:
        look = open_in_root(root_fd, path, os.O_PATH)
    except FileNotFoundError:
        fd = open_in_root(root_fd, path, CREATE, mode)
    else:
        with closing(look):
            fd = open_regular(look, REPLACE, path)
    with closing(fd):
        while data := os.read(data_fd, CHUNK_BYTES):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        os.fchown(fd, *owner)
        os.fchmod(fd, mode)


def read(fds: Sequence[int], path: str, limit_bytes: int) -> bytes:
    """Return the content of a file."""
    return read_in_root(fds[0], path, limit_bytes)


def send(fds: Sequence[int], path: str, follow: bool, without: frozenset[int]) -> int:
    """Write a file or a tree to a pipe; see `tar_copy.pack`."""
    with open(fds[1], "wb", 0, closefd=False) as pipe:
        return pack(fds[0], path, follow, pipe, without)


def take(fds: Sequence[int], path: str, owner: tuple[int, int] | None) -> None:
    """Unpack a tar from a pipe; see `tar_copy.receive`."""
    with open(fds[1], "rb", 0, closefd=False) as pipe:
        receive(fds[0], path, pipe, owner, privileged=True)


def make_socket(fds: Sequence[int]) -> None:
    """Make a TCP socket in a network namespace and send it over a socket."""
    network_fd, answer_fd = fds
    set_network_namespace(network_fd)
    with socket.socket() as made, socket.socket(fileno=os.dup(answer_fd)) as answer:
        socket.send_fds(answer, [b"s"], [made.fileno()])


JOBS: dict[str, Callable[..., Any]] = {each.__name__: each for each in (write, read, send, take, make_socket)}
