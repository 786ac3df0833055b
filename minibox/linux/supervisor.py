"""A container's supervisor: the small C process that is its parent once minibox has gone.

The other side of the messages is ``native/supervisor.c``, their layout ``native/supervisor.h``.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, MSG_CMSG_CLOEXEC, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET, socketpair
from mmap import mmap
from select import POLLIN, poll
from struct import pack, unpack_from

from minibox.linux.process import send_signal
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SOCK_CLOEXEC = 0o2000000
SUPERVISOR_ARGV0 = "minibox-supervisor"
DELAY_ARGV0 = "minibox-delay"
SPAWN, SUPERVISE, SPAWN_HELPER = 1, 2, 3
RECORD_BYTES, TIME_BYTES = 16, 16  # struct mb_record, struct mb_time
SPACE_OF_ONE_FD = 24  # CMSG_SPACE(sizeof(int))
SIGKILL = 9
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
    stdin_once: bool = False


class Supervisor:
    """A supervisor that has just been started, and the socket to it.

    While the socket is open it does what it is asked to; closed before `supervise`, it ends, and
    what it has spawned is killed with it.
    """

    def __init__(self, program: str, container_id: str) -> None:
        """Start it.

        Args:
            program: path of minibox-init, which plays this part too.
            container_id: for those who read ps(1).

        Raises:
            OSError: the kernel refuses.
        """
        self._socket, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        try:
            self.pid: int = os.posix_spawn(
                program,
                (SUPERVISOR_ARGV0, container_id[:12]),
                dict(os.environ),
                file_actions=((os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),),
                setsid=True,
            )
        except OSError:
            self._socket.close()
            raise
        finally:
            theirs.close()

    def spawn(
        self, buffer: bytearray, flags: int, slots: Iterable[int], op_count: int, cgroup_fd: int = -1
    ) -> SupervisedChild:
        """Have it clone the container's first process; arguments and errors as of `linux.process.Child`."""
        return self._spawn(SPAWN, buffer, flags, slots, op_count, cgroup_fd)

    def spawn_helper(self, buffer: bytearray, flags: int, slots: Iterable[int], op_count: int) -> SupervisedChild:
        """Have it clone a process that is sent SIGTERM when the container has ended."""
        return self._spawn(SPAWN_HELPER, buffer, flags, slots, op_count, -1)

    def _spawn(
        self, kind: int, buffer: bytearray, flags: int, slots: Iterable[int], op_count: int, cgroup_fd: int
    ) -> SupervisedChild:
        plan_offset = -(-(RECORD_BYTES + TIME_BYTES * op_count) // 64) * 64
        memory_fd = os.memfd_create("minibox-plan", os.MFD_CLOEXEC)
        fds = [memory_fd]
        if cgroup_fd >= 0:
            fds.append(cgroup_fd)
        indexes = []
        for fd in slots:
            if fd < 0:
                indexes.append(-1)
                continue
            if fd not in fds:
                fds.append(fd)
            indexes.append(fds.index(fd))
        try:
            os.ftruncate(memory_fd, plan_offset + len(buffer))
            os.pwrite(memory_fd, buffer, plan_offset)
            head = pack("=IIQIIII", kind, op_count, flags, plan_offset, len(buffer), cgroup_fd >= 0, len(indexes))
            pid, pidfd = self._ask(head + pack(f"={len(indexes)}h", *indexes), fds)
            return SupervisedChild(pid, pidfd, mmap(memory_fd, plan_offset), op_count)
        finally:
            os.close(memory_fd)

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
            "=IIIIIIQII",
            SUPERVISE,
            mask,
            int(duties.timeout_s * 1000),
            int(duties.health_interval_s * 1000),
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

    def _ask(self, message: bytes, fds: list[int]) -> tuple[int, int]:
        """Send a request; the number and the descriptor (-1: none) of the answer."""
        rights = (SOL_SOCKET, SCM_RIGHTS, pack(f"={len(fds)}i", *fds))
        self._socket.sendmsg([message], [rights] if fds else [])
        data, control, *_ = self._socket.recvmsg(4, SPACE_OF_ONE_FD, MSG_CMSG_CLOEXEC)
        if len(data) != 4:
            raise ConnectionResetError("the container's supervisor has died")
        number = int.from_bytes(data, "little", signed=True)
        if number < 0:
            raise OSError(-number, os.strerror(-number))
        return number, unpack_from("=i", control[0][2])[0] if control else -1


class SupervisedChild:
    """A process of a supervisor's; the same to look at as `linux.process.Child`."""

    def __init__(self, pid: int, pidfd: int, memory: mmap, op_count: int) -> None:
        self.pid, self.pidfd, self._memory, self._op_count = pid, pidfd, memory, op_count

    def progress(self) -> tuple[int, int, int, int]:
        """See `linux.process.Child.progress`."""
        state, index, error, detail = unpack_from("=IIiI", self._memory)
        return state, index, error, detail

    def times(self) -> list[tuple[int, int]]:
        """See `linux.process.Child.times`."""
        numbers = unpack_from(f"={2 * self._op_count}Q", self._memory, RECORD_BYTES)
        return list(zip(numbers[::2], numbers[1::2]))

    def send_signal(self, number: int) -> None:
        """Send a signal; a process that has ended is no error."""
        send_signal(self.pidfd, number)

    def wait(self) -> None:
        """Wait for its end; how it ended its supervisor knows."""
        waiting = poll()
        waiting.register(self.pidfd, POLLIN)
        waiting.poll()

    def end(self, signal_number: int) -> None:
        """Send a signal, and wait."""
        self.send_signal(signal_number)
        self.wait()

    def close(self) -> None:
        """Free the record and the pidfd."""
        if self.pidfd >= 0:
            self._memory.close()
            os.close(self.pidfd)
            self.pidfd = -1
