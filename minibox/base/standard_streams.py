"""Replacements in `sys` for standard streams that were closed, or set to O_NONBLOCK, when the program started."""

from __future__ import annotations

import os
from io import BufferedReader, BufferedWriter, FileIO, RawIOBase, TextIOWrapper
from select import POLLIN, POLLOUT, poll
from typing import TYPE_CHECKING

from minibox.errors import MiniboxError

if TYPE_CHECKING:
    from typing import Any, NoReturn

NAMES = ("standard input", "standard output", "standard error")


class ClosedStream(MiniboxError):
    """A command used a standard stream that its caller had closed."""


def closed(fd: int) -> TextIOWrapper:
    """Open /dev/null as a descriptor that is closed, and return a stream for it.

    This keeps the number from going to another file. Reading or writing the stream raises `ClosedStream`, except for
    standard error: whoever closes that doesn't want to see errors.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    if null != fd:  # usually equal: open(2) returns the lowest free number, and those below ``fd`` are open
        os.dup2(null, fd)
        os.close(null)
    os.set_inheritable(fd, True)
    if fd == 2:
        return open(fd, "w", errors="backslashreplace", closefd=False)
    return TextIOWrapper(_Closed(fd), encoding="utf-8", errors="surrogateescape", write_through=True)  # type: ignore[arg-type]


def patient(stream: TextIOWrapper, fd: int) -> TextIOWrapper:
    """Replace ``stream``, whose file is set to O_NONBLOCK, by one that waits instead of failing.

    The flag stays set, since other processes share it.
    """
    raw = _Patient(fd, "r" if fd == 0 else "w", closefd=False)
    buffer = BufferedReader(raw) if fd == 0 else BufferedWriter(raw)
    return TextIOWrapper(
        buffer, encoding=stream.encoding, errors="surrogateescape", line_buffering=stream.line_buffering
    )


class _Closed(RawIOBase):
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def readable(self) -> bool:
        return self._fd == 0

    def writable(self) -> bool:
        return self._fd != 0

    def readinto(self, _: Any, /) -> NoReturn:
        raise ClosedStream("read standard input: it is closed", "give it a file or a pipe, or </dev/null")

    def write(self, _: Any, /) -> NoReturn:
        raise ClosedStream(f"write {NAMES[self._fd]}: it is closed", "give it a file or a pipe, or >/dev/null")


class _Patient(FileIO):
    def _wait(self, event: int) -> None:
        waiting = poll()
        waiting.register(self.fileno(), event)
        waiting.poll()

    def readinto(self, buffer: Any, /) -> int:
        while (size := super().readinto(buffer)) is None:
            self._wait(POLLIN)
        return size

    def readall(self) -> bytes:
        data = bytearray()
        chunk = bytearray(1 << 16)
        while size := self.readinto(chunk):
            data += chunk[:size]
        return bytes(data)

    def write(self, data: Any, /) -> int:
        while (size := super().write(data)) is None:
            self._wait(POLLOUT)
        return size
