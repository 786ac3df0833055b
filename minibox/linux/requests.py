"""Processes that another process makes for us, a supervisor or the launcher: the Python side of ``native/requests.h``."""

from __future__ import annotations

import os
from _socket import MSG_CMSG_CLOEXEC, SCM_RIGHTS, SOL_SOCKET
from select import POLLIN, poll
from struct import pack, unpack_from

from minibox._native import ffi, lib
from minibox.linux.process import Recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterable, Sequence

SPAWN, SUPERVISE, SPAWN_HELPER, GOES_ON_AS, LET_GO, END, HOLD = range(1, 8)  # enum mb_request
RECORD_BYTES, TIME_BYTES = 16, 16  # struct mb_record, struct mb_time
SPACE_OF_ONE_FD = 24  # CMSG_SPACE(sizeof(int))
ANSWER_BYTES, MESSAGE_BYTES_MAX = 4, 64
DESCRIPTORS_MAX = 253  # that one message carries


class RequestedChild(Recorded):
    """A process that another makes; the caller gives it its pid and its pidfd."""

    def __init__(self, buffer: bytes | bytearray, op_count: int) -> None:
        """Share the memory that it needs.

        Args:
            buffer: an encoded plan.
            op_count: operations in it.

        Raises:
            OSError: there is no memory for it.
        """
        self._plan_offset = -(-(RECORD_BYTES + TIME_BYTES * op_count) // 64) * 64
        self._plan_size = len(buffer)
        memory_fd = ffi.new("int *", -1)
        super().__init__(lib.mb_record_share(self._plan_offset + self._plan_size, memory_fd), op_count)
        if self._record == ffi.NULL:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        self._memory_fd: int = memory_fd[0]
        ffi.memmove(ffi.cast("char *", self._record) + self._plan_offset, buffer, self._plan_size)

    def request(self, kind: int, flags: int, slots: Iterable[int], cgroup_fd: int) -> tuple[bytes, list[int]]:
        """The message that asks for it, and the descriptors that go with it.

        Args:
            kind: `SPAWN` or `SPAWN_HELPER`.
            flags: CLONE_NEW* of clone3(2).
            slots: its descriptor slots, -1 for an empty one.
            cgroup_fd: directory of the cgroup v2 it is born in, or -1.
        """
        fds = [self._memory_fd]
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

    def made(self, answer: tuple[int, int]) -> None:
        """Take the answer, a pid and a pidfd."""
        self.pid, self.pidfd = answer
        self._close_memory()

    def wait(self) -> object:
        """Wait for its end; how it ended, its maker knows."""
        wait_for_end(self.pidfd)
        return None

    def end(self, signal_number: int) -> object:
        """Send a signal, and wait."""
        self.send_signal(signal_number)
        return self.wait()

    def close(self) -> None:
        """Free the record and the pidfd."""
        self._close_memory()
        if self._record is not None:
            lib.mb_record_unshare(self._record, self._plan_offset + self._plan_size)
            self._record = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _close_memory(self) -> None:
        if self._memory_fd >= 0:
            os.close(self._memory_fd)
            self._memory_fd = -1


def wait_for_end(pidfd: int) -> None:
    """Wait until a process has ended."""
    waiting = poll()
    waiting.register(pidfd, POLLIN)
    waiting.poll()


def has_ended(pidfd: int, within_ms: int = 0) -> bool:
    """Has a process ended, or does it in so many milliseconds?"""
    waiting = poll()
    waiting.register(pidfd, POLLIN)
    return bool(waiting.poll(within_ms))


def send(connection: socket, message: bytes, fds: Sequence[int]) -> None:
    """Send a request with descriptors.

    Raises:
        OSError: of the kinds of ConnectionError when the other end has died.
    """
    connection.sendmsg([message], [(SOL_SOCKET, SCM_RIGHTS, pack(f"={len(fds)}i", *fds))] if fds else [])


def receive(connection: socket) -> tuple[bytes, int]:
    """A message and its descriptor, -1 for none.

    Raises:
        ConnectionResetError: the other end has died.
    """
    data, control, *_ = connection.recvmsg(MESSAGE_BYTES_MAX, SPACE_OF_ONE_FD, MSG_CMSG_CLOEXEC)
    if not data:
        raise ConnectionResetError("the process that makes containers has died")
    return data, unpack_from("=i", control[0][2])[0] if control else -1


def answered(data: bytes, fd: int) -> tuple[int, int]:
    """The number and the descriptor of an answer.

    Raises:
        OSError: it is a refusal.
    """
    number = int.from_bytes(data[:ANSWER_BYTES], "little", signed=True)
    if number < 0:
        raise OSError(-number, os.strerror(-number))
    return number, fd
