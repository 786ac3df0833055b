"""What is done inside a running container by a process that is root of its user namespace, for want of a thread that may.

That process is a child of this one's, where it is small and has no other threads: they may hold locks, and memory is copied
page by page. Else it is a child of a small process's, `engine.worker`. So what a job gets is descriptors and what marshal
takes, and not what is around the caller.
"""

from __future__ import annotations

import os
import resource
import socket
from typing import Any, Protocol, TypeVar

from minibox.base.files import open_regular
from minibox.engine import tidying, worker
from minibox.engine.copy_ends import pack, receive
from minibox.engine.user_namespace import Work
from minibox.linux.files import open_in_root, read_in_root
from minibox.linux.process import set_network_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T_co = TypeVar("T_co", covariant=True)
REPLACE = os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
CREATE = REPLACE | os.O_CREAT
CHUNK_BYTES = 1 << 20
#: Resident: with more, a child's page tables and the faults after it take longer than to ask the worker.
FORKED_BYTES_MAX = 128 << 20


class Pending(Protocol[T_co]):
    """A job that was begun."""

    def result(self) -> T_co:
        """Wait for its end; what it returned.

        Raises:
            MiniboxError, OSError: it failed so.
        """


def begin(
    name: str, fds: Sequence[int], arguments: tuple[Any, ...], pid: int, ours: Sequence[int] = ()
) -> Pending[Any]:
    """Begin one of `JOBS`.

    Args:
        fds: descriptors for it: the root directory first.
        arguments: of what marshal takes.
        pid: of a process in whose user namespace it is done, as its root.
        ours: descriptors that it must not hold open.

    Raises:
        MiniboxError: the process has ended.
    """
    if not _can_fork() and (found := worker.of_caller()):
        return found.begin(name, fds, arguments, pid)

    def work() -> Any:
        for fd in ours:
            os.close(fd)
        return JOBS[name](fds, *arguments)

    return Work(work, pid)


def _can_fork() -> bool:
    """Has this process no other thread than our own, which is ready for it, and is it small?"""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    threads, resident_pages = int(fields[17]), int(fields[21])  # proc_pid_stat(5): fields 20 and 24
    return threads == 1 + tidying.works() and resident_pages * resource.getpagesize() <= FORKED_BYTES_MAX


def write(fds: Sequence[int], path: str, mode: int, owner: tuple[int, int]) -> None:
    """Write what comes by a pipe to a file; what was there of that name is replaced in place."""
    root_fd, data_fd = fds
    try:
        look = open_in_root(root_fd, path, os.O_PATH)
    except FileNotFoundError:
        fd = open_in_root(root_fd, path, CREATE, mode)
    else:
        try:
            fd = open_regular(look, REPLACE, path)
        finally:
            os.close(look)
    try:
        while data := os.read(data_fd, CHUNK_BYTES):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        os.fchown(fd, *owner)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def read(fds: Sequence[int], path: str, limit_bytes: int) -> bytes:
    """The content of a file."""
    return read_in_root(fds[0], path, limit_bytes)


def send(fds: Sequence[int], path: str, follow: bool, without: frozenset[int]) -> int:
    """Write a file or a tree to a pipe; see `copy_ends.pack`."""
    with open(fds[1], "wb", 0, closefd=False) as pipe:
        return pack(fds[0], path, follow, pipe, without)


def take(fds: Sequence[int], path: str, owner: tuple[int, int] | None) -> None:
    """Put into place what comes by a pipe; see `copy_ends.receive`."""
    with open(fds[1], "rb", 0, closefd=False) as pipe:
        receive(fds[0], path, pipe, owner, privileged=True)


def make_socket(fds: Sequence[int]) -> None:
    """Make a TCP socket in a network namespace, and send it by a socket."""
    network_fd, answer_fd = fds
    set_network_namespace(network_fd)
    with socket.socket() as made, socket.socket(fileno=os.dup(answer_fd)) as answer:
        socket.send_fds(answer, [b"s"], [made.fileno()])


JOBS: dict[str, Callable[..., Any]] = {each.__name__: each for each in (write, read, send, take, make_socket)}
