"""Ask a supervisor or the launcher to make processes for us: the Python side of ``native/parent/requests.h``."""

from __future__ import annotations

import os
from _socket import SCM_RIGHTS, SOL_SOCKET
from errno import EINTR
from select import POLLIN, poll
from struct import pack

from minibox._native import ffi, lib
from minibox.base.files import wait_readable
from minibox.linux.process import RECORD_BYTES, TIME_BYTES, Recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterable, Sequence

    from minibox.linux.process import Descriptor

SPAWN, SUPERVISE, SPAWN_HELPER, GOES_ON_AS, LET_GO, END, HOLD = range(1, 8)  # enum mb_request
ANSWER_BYTES = 4
READ_BYTES = 1 << 16
PEER_DEAD: int = lib.MB_PEER_DEAD
DESCRIPTORS_MAX = 253  # in one message


class Messages:
    """Receives messages from a peer over a socket, one at a time. A message stays here until you call `done`.

    So no message is lost if its receiver is interrupted.
    """

    def __init__(self) -> None:
        self._it = ffi.gc(ffi.new("struct mb_delivery *", {"fd": -1}), lib.mb_delivery_free)

    def take(self, socket_fd: int, peer: int) -> bytes:
        """Return the current message, or wait for one.

        Args:
            peer: the sender's pidfd, or `PEER_DEAD` if it was reaped. It is needed because others may hold copies of
                its end of the socket, which then stays open when the sender dies.

        Raises:
            ConnectionResetError: the peer has died.
            OSError: the kernel refuses.
        """
        message = self._it
        while not message.length:
            error = -lib.mb_delivery_take(message, socket_fd, peer)
            if error not in (0, EINTR):
                raise OSError(error, os.strerror(error))
        return bytes(ffi.buffer(message.data, message.length))

    @property
    def fd(self) -> int:
        """The descriptor that came with the message; -1 for none."""
        fd: int = self._it.fd
        return fd

    def move_fd(self, to: Descriptor) -> None:
        """Move the descriptor to another owner."""
        lib.mb_fd_move(ffi.addressof(self._it, "fd"), to.place)

    def done(self) -> None:
        """Remove the message, so that the next one can come. If nobody took its descriptor, close it."""
        lib.mb_delivery_free(self._it)


class RequestedChild(Recorded):
    """A process that another process makes. The caller passes its pid and pidfd to `made`."""

    def __init__(self, buffer: bytes | bytearray, op_count: int) -> None:
        """Share the memory that the process needs.

        Args:
            buffer: an encoded plan.
            op_count: the number of operations in it.

        Raises:
            OSError: there is no memory for it.
        """
        self._plan_offset = -(-(RECORD_BYTES + TIME_BYTES * op_count) // 64) * 64
        self._plan_size = len(buffer)
        super().__init__(self._plan_offset + self._plan_size, op_count, in_file=True)
        ffi.memmove(ffi.cast("char *", self._record) + self._plan_offset, buffer, self._plan_size)

    def request(self, kind: int, flags: int, slots: Iterable[int], cgroup_fd: int) -> tuple[bytes, list[int]]:
        """Return the message that asks for the process, and its descriptors.

        Args:
            kind: `SPAWN` or `SPAWN_HELPER`.
            flags: CLONE_NEW* of clone3(2).
            slots: the plan's descriptor slots, -1 for an empty one.
            cgroup_fd: the directory of the v2 cgroup to start it in, or -1.
        """
        fds = [self._view.memory_fd]
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
        sizes = (self._op_count, flags, self._plan_offset, self._plan_size, cgroup_fd >= 0, len(indexes))
        return pack(f"=IIQIIII{len(indexes)}h", kind, *sizes, *indexes), fds

    def made(self, messages: Messages, answer: bytes) -> None:
        """Take the answer: a pid, and a pidfd.

        Raises:
            OSError: the answer is an error.
        """
        self.pid = answered(answer)
        messages.move_fd(self._process)
        messages.done()
        lib.mb_fd_close(ffi.addressof(self._view, "memory_fd"))

    def wait(self) -> object:
        """Wait for its end. Only the process that made it knows how it ended."""
        wait_readable(self.pidfd)
        return None

    def end(self, signal_number: int) -> object:
        """Send a signal, and wait for the end."""
        self.send_signal(signal_number)
        return self.wait()


def read_from(fd: int, pidfd: int) -> bytes:
    """Return the next bytes that a process writes; b"" at their end, or when the process has ended.

    Waiting for the end of the bytes alone isn't enough: others may hold its end of the pipe, too.

    Args:
        fd: a non-blocking pipe or stream socket.
        pidfd: the process's pidfd; -1 if it was reaped.
    """
    waiting = poll()
    waiting.register(fd, POLLIN)
    if pidfd >= 0:
        waiting.register(pidfd, POLLIN)
    while True:
        ended = pidfd < 0 or any(each == pidfd for each, _ in waiting.poll())
        try:
            return os.read(fd, READ_BYTES)
        except BlockingIOError:
            if ended:
                return b""


def has_left(pid: int) -> bool:
    """Tell whether a process has left its namespaces.

    That comes first: its pidfd reports its end only when all others in its pid namespace have ended, too.
    """
    try:
        os.readlink(f"/proc/{pid}/ns/net")
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        pass  # this user may not look
    return False


def send(connection: socket, message: bytes, fds: Sequence[int]) -> None:
    """Send a request with descriptors.

    Raises:
        OSError: a ConnectionError if the other end has died.
    """
    connection.sendmsg([message], [(SOL_SOCKET, SCM_RIGHTS, pack(f"={len(fds)}i", *fds))] if fds else [])


def answered(data: bytes) -> int:
    """Return the number in an answer.

    Raises:
        OSError: the answer is an error.
    """
    number = int.from_bytes(data[:ANSWER_BYTES], "little", signed=True)
    if number < 0:
        raise OSError(-number, os.strerror(-number))
    return number
