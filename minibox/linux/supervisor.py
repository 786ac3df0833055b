"""A container's supervisor: the small C process that is its parent once minibox has gone.

The other side of the messages is ``native/supervisor.c``, their layout ``native/supervisor.h``.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_SEQPACKET, socketpair
from struct import pack

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
        log_path: of the log in Docker's json-file form; "" for none.
        log_bytes_max: size at which a file of the log is full, 0 for no limit.
        log_files: how many are kept.
        exit_path: where it writes how the container ended, as JSON: status, signal, timed_out, finished_ns.
        after: the command that takes its place in the end; the claim is that one's descriptor 3.
        timeout_s: the container is killed when it has passed; 0 for none.
        health: the command that it runs every ``health_interval_s``; empty for none.
        health_start_interval_s: the interval of the first ``health_start_period_s``, or until the command exits with 0.
        stdin_once: the container's input ends when the client that wrote to it leaves.
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


class Supervisor:
    """A supervisor that has just been started, and the socket to it.

    While the socket is open it does what it is asked to; closed before `supervise`, it ends, and
    what it has spawned is killed with it.
    """

    def __init__(self, container_id: str) -> None:
        """Start it.

        Args:
            container_id: for those who read ps(1).

        Raises:
            OSError: the kernel refuses.
        """
        self._messages, self._program = Messages(), Program()
        self._socket, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        init_fd = open_init()
        try:
            # The executable is 1 there: its last user closes a mount, which takes a while.
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
        """Have it make the container's first process; arguments and errors as of `linux.launcher.spawn`."""
        child = SupervisedChild(self, buffer, op_count)
        return self._make(child, *child.request(SPAWN, flags, slots, cgroup_fd))

    def spawn_helper(
        self, buffer: bytes | bytearray, flags: int, slots: Iterable[int], op_count: int
    ) -> RequestedChild:
        """Have it make a process that is sent SIGTERM when the container has ended."""
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
        """Have it keep copies of descriptors open until the container has ended.

        Raises:
            OSError: it can't.
        """
        for at in range(0, len(fds), DESCRIPTORS_MAX):
            self._ask(HOLD.to_bytes(4, "little"), list(fds[at : at + DESCRIPTORS_MAX]))

    def supervise(self, duties: Duties, descriptors: dict[str, int]) -> None:
        """Leave the container to it: from now on it stays when this process ends.

        Args:
            descriptors: by a name of `DESCRIPTORS`; the caller closes its own.

        Raises:
            OSError: it can't, as for a log that can't be opened.
        """
        texts = [duties.log_path, duties.exit_path, *duties.after, *duties.health]
        mask = sum(1 << DESCRIPTORS.index(name) for name in descriptors)
        head = pack(
            "=IIIIIIIIQII",
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
        )
        text = b"".join(os.fsencode(each) + b"\0" for each in texts)
        self._ask(head + text, [descriptors[name] for name in DESCRIPTORS if name in descriptors])

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._program.close()

    def _ask(self, message: bytes, fds: list[int]) -> None:
        """Send a request that is answered by 0."""
        answered(self._answer(message, fds))
        self._messages.done()

    def _answer(self, message: bytes, fds: list[int]) -> bytes:
        """Send a request; the answer, which stays in the messages.

        Raises:
            OSError: of the kinds of ConnectionError when it has died.
        """
        send(self._socket, message, fds)
        return self._messages.take(self._socket.fileno(), self._program.pidfd)


class SupervisedChild(RequestedChild):
    """A container's first process, whose end its supervisor sees to."""

    def __init__(self, supervisor: Supervisor, buffer: bytes | bytearray, op_count: int) -> None:
        super().__init__(buffer, op_count)
        self.spawn_helper = supervisor.spawn_helper

    def let_go(self) -> None:
        """It is its supervisor's."""
