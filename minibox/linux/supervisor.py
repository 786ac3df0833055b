"""A container's supervisor: the small C process that stays its parent after minibox has exited.

The other side of the messages is ``native/parent/supervisor.c``, their layout ``native/parent/supervisor.h``.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_SEQPACKET, socketpair
from struct import pack

from minibox._native import ffi, lib
from minibox.linux.executable import open_init
from minibox.linux.process import Program
from minibox.linux.requests import (
    DESCRIPTORS_MAX,
    HOLD,
    SPAWN,
    SPAWN_HELPER,
    SUPERVISE,
    Messages,
    RequestedChild,
    answered,
    send,
)
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeVar

    AnyChild = TypeVar("AnyChild", bound=RequestedChild)

SOCK_CLOEXEC = 0o2000000
SUPERVISOR_ARGV0 = "minibox-supervisor"
DELAY_ARGV0 = "minibox-delay"
DESCRIPTORS = ("claim", "listener", "terminal", "stdin", "stdout", "stderr")  # enum mb_supervised


@record
class Duties:
    """What a supervisor does once the command runs.

    Attributes:
        log_path: the log in Docker's json-file format; "" for none.
        log_bytes_max: the largest size of a log file, 0 for no limit.
        log_files: the number of log files to keep.
        exit_path: the file for how the container ended, as JSON: status, signal, timed_out, finished_ns.
        after: the command that the supervisor executes at its end; it gets the claim as descriptor 3.
        timeout_s: the container is killed after this time; 0 for no limit.
        health: the command to run every ``health_interval_s``; empty for none.
        health_start_interval_s: the interval during the first ``health_start_period_s``, or until the command exits
            with 0.
        stdin_once: close the container's input when the client that wrote to it leaves.
        end: an encoded plan of `end_signatures` that does the end without ``after``; b"" for none.
    """

    log_path: str
    log_bytes_max: int
    log_files: int
    exit_path: str
    after: tuple[str, ...]
    timeout_s: float = 0
    health: tuple[str, ...] = ()
    health_interval_s: float = 0
    health_start_interval_s: float = 0
    health_start_period_s: float = 0
    stdin_once: bool = False
    end: bytes = b""


def end_signatures() -> dict[str, tuple[int, str]]:
    """Return the code and argument kinds of each operation that a supervisor can do at the end, by name."""
    rows = enumerate(lib.mb_end_signatures[0 : lib.mb_end_count])
    return {ffi.string(row.name).decode(): (code, ffi.string(row.arguments).decode()) for code, row in rows}


class Supervisor:
    """A supervisor that was just started, and the socket to it.

    It handles requests while the socket is open. If you close that before `supervise`, it ends, and kills everything
    that it spawned.
    """

    def __init__(self, container_id: str) -> None:
        """Start the supervisor.

        Args:
            container_id: shown by ps(1).

        Raises:
            OSError: the kernel refuses.
        """
        self._messages, self._program = Messages(), Program()
        self._socket, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        init_fd = open_init()
        try:
            # Pass the executable as descriptor 1, to keep it open: closing the last one unmounts it, which is slow.
            path, argv = f"/proc/self/fd/{init_fd}", (SUPERVISOR_ARGV0, container_id[:12])
            self._program.start(path, argv, os.environ, (theirs.fileno(), init_fd))
        finally:
            os.close(init_fd)
            theirs.close()

    @property
    def pid(self) -> int:
        return self._program.pid

    def spawn(
        self, buffer: bytes | bytearray, flags: int, slots: Iterable[int], op_count: int, cgroup_fd: int = -1
    ) -> SupervisedChild:
        """Make the container's first process; for arguments and errors see `linux.launcher.spawn`."""
        child = SupervisedChild(self, buffer, op_count)
        return self._make(child, *child.request(SPAWN, flags, slots, cgroup_fd))

    def spawn_helper(
        self, buffer: bytes | bytearray, flags: int, slots: Iterable[int], op_count: int
    ) -> RequestedChild:
        """Make a process that gets SIGTERM when the container has ended."""
        helper = RequestedChild(buffer, op_count)
        return self._make(helper, *helper.request(SPAWN_HELPER, flags, slots, -1))

    def _make(self, child: AnyChild, message: bytes, fds: list[int]) -> AnyChild:
        try:
            child.made(self._messages, self._answer(message, fds))
        except BaseException:
            child.close()
            raise
        return child

    def hold(self, fds: Sequence[int]) -> None:
        """Make the supervisor keep copies of descriptors open until the container has ended.

        Raises:
            OSError: it can't.
        """
        for at in range(0, len(fds), DESCRIPTORS_MAX):
            self._ask(HOLD.to_bytes(4, "little"), list(fds[at : at + DESCRIPTORS_MAX]))

    def supervise(self, duties: Duties, descriptors: dict[str, int]) -> None:
        """Hand the container over to the supervisor: from now on it survives the end of this process.

        Args:
            descriptors: by their names in `DESCRIPTORS`; the caller closes its own copies.

        Raises:
            OSError: it can't, for example because the log can't be opened.
        """
        texts = [duties.log_path, duties.exit_path, *duties.after, *duties.health]
        mask = sum(1 << DESCRIPTORS.index(name) for name in descriptors)
        head = pack(
            "=IIIIIIIIQIIII",
            SUPERVISE,
            mask,
            int(duties.timeout_s * 1000),
            int(duties.health_interval_s * 1000),
            int(duties.health_start_interval_s * 1000),
            int(duties.health_start_period_s * 1000),
            duties.stdin_once,
            duties.log_files if duties.log_path else 0,
            duties.log_bytes_max,
            len(duties.after),
            len(duties.health),
            len(duties.end),
            0,
        )
        text = b"".join(os.fsencode(each) + b"\0" for each in texts)
        self._ask(head + duties.end + text, [descriptors[name] for name in DESCRIPTORS if name in descriptors])

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._program.close()

    def _ask(self, message: bytes, fds: list[int]) -> None:
        """Send a request whose answer is 0."""
        answered(self._answer(message, fds))
        self._messages.done()

    def _answer(self, message: bytes, fds: list[int]) -> bytes:
        """Send a request and return the answer, which stays in the messages.

        Raises:
            OSError: a ConnectionError if the supervisor has died.
        """
        send(self._socket, message, fds)
        return self._messages.take(self._socket.fileno(), self._program.pidfd)


class SupervisedChild(RequestedChild):
    """A container's first process, whose end the supervisor handles."""

    def __init__(self, supervisor: Supervisor, buffer: bytes | bytearray, op_count: int) -> None:
        super().__init__(buffer, op_count)
        self.spawn_helper = supervisor.spawn_helper

    def let_go(self) -> None:
        """Do nothing: the supervisor owns it."""
