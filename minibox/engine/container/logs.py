"""Read the log of a detached container, which its supervisor writes and rotates.

The files are ``path``, ``path.1`` and so on; higher numbers are older. Each line is a JSON object in the format of
Docker's json-file driver: ``{"log": "text\\n", "stream": "stdout", "time": "...Z"}``. All times have the same format,
UTC with nanoseconds, so they sort as strings.
"""

from __future__ import annotations

import os
from datetime import UTC
from fcntl import LOCK_SH, flock
from json import loads
from time import sleep

from minibox.base import damage
from minibox.base.codec import damage_of
from minibox.base.files import open_to_read
from minibox.base.values import parse_duration_ns
from minibox.engine.container import collection
from minibox.engine.state import claim, containers
from minibox.engine.state.log_file import log_path, log_time
from minibox.errors import MiniboxError, UsageError, suppress
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from minibox.base.home import Home

BLOCK = 1 << 16
YEAR_10000_S = 253402300800
POLL_S = 0.1
MISSED = (
    "lines are missing here: the log was rotated faster than it was read (--log-opt max-size and max-file keep more)"
)
_MISSED = b'{"missed":true}\n'  # native/parent/supervisor_log.c ends a file with it if the next one was removed unread


@record
class LogEntry:
    """A line that the container wrote, or a part of a very long one.

    Attributes:
        stream: ``stdout`` or ``stderr``.
        text: with its newline, if it has one.
        time: RFC 3339, UTC, with nanoseconds.
    """

    stream: str
    text: str
    time: str


def log_bound(text: str, now_s: float) -> str:
    """Convert a time from a user to the format of the log; "" stays "".

    Args:
        text: how long ago (``1h30m``), seconds since the epoch (``1700000000.5``), or an RFC 3339 date. In a date the
            time or seconds may be left out and are 0 then; without a time zone it is local time.

    Raises:
        UsageError: ``text`` is invalid.
    """
    from datetime import datetime

    if not text:
        return ""
    with suppress(ValueError):
        return log_time(now_s - parse_duration_ns(text.removeprefix("-")) / 1e9)
    whole, _, fraction = text.partition(".")
    is_number = whole.isascii() and whole.isdecimal() and len(whole) != 8 and (not fraction or fraction.isdecimal())
    if is_number and len(whole) <= len(str(YEAR_10000_S)) and int(whole) < YEAR_10000_S:
        return log_time(int(whole))[: -len("000000000Z")] + fraction[:9].ljust(9, "0") + "Z"
    try:
        date, point, fraction = text.partition(".")
        digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))]
        moment = datetime.fromisoformat(date + fraction[len(digits) :]).astimezone(UTC)
        if point and not digits:
            raise ValueError
    except (ValueError, OverflowError):
        raise UsageError(f"invalid time {text!r}", "use 10m, 2026-01-02T15:04:05Z, or Unix seconds") from None
    return moment.isoformat()[: len("2026-01-02T15:04:05")] + "." + digits[:9].ljust(9, "0") + "Z"


def tail_count(text: str) -> int | None:
    """Parse ``--tail``: the number of lines, None for all. A negative number means all, as in Docker.

    Raises:
        UsageError: it isn't a number.
    """
    if text == "all" or (text[:1] == "-" and text[1:].isdecimal()):
        return None
    if text.isascii() and text.isdecimal():
        return int(text)
    raise UsageError(f"invalid number of lines {text!r}", "use a number, or all")


def container_log(
    home: Home,
    name_or_id: str,
    *,
    follow: bool,
    tail: int | None,
    since: str,
    until: str,
    on_note: Callable[[str], None],
) -> Iterator[LogEntry]:
    """Read a container's log. The other arguments are those of `read_log`.

    Args:
        follow: wait for more until the container has ended and won't be restarted.
        on_note: called with a note: the container never started, or lines are missing.

    Raises:
        ContainerNotFound
        MiniboxError: it has no log.
    """
    collection.collect(home)
    found = containers.find(home.root, name_or_id)
    container_id, options = found["Id"], found.get("Options", {})
    path = log_path(home.root, container_id)
    if options.get("log_driver") == "none":
        raise MiniboxError(f"container {name_or_id} was run with --log-driver none, so it has no log")
    live = claim.read_owner(home.root, container_id)
    if not os.path.exists(path) and not (live and live.pid <= 0):
        if found["Status"] == "created":
            on_note(f"container {name_or_id} was never started")
            return
        if found.get("Supervised"):
            raise MiniboxError(f"container {name_or_id} has no log: it was removed", "its next start begins a new one")
        raise MiniboxError(
            f"container {name_or_id} was run in the foreground, so it has no log",
            "run it with -d, or with --log-driver json-file",
        )
    watch = claim.OwnerWatch(home.root, container_id)
    try:
        yield from read_log(
            path,
            tail=tail,
            since=since,
            until=until,
            writes=watch.is_owned if follow else None,
            on_missed=lambda: on_note(MISSED),
        )
    finally:
        watch.close()


def read_log(
    path: str,
    *,
    tail: int | None = None,
    since: str = "",
    until: str = "",
    writes: Callable[[], bool] | None = None,
    on_missed: Callable[[], None] = lambda: None,
) -> Iterator[LogEntry]:
    """Yield the entries of a log, oldest first; none if there is no log.

    Args:
        tail: only so many, from the end.
        since, until: only entries between these times, in the format of `log_time`; "" for no bound.
        writes: returns whether the container may still write. As long as it does, wait for more, even if the log is
            rotated. Afterwards the log is read once more, so that nothing is lost.
        on_missed: called where lines are missing.

    Raises:
        OSError: the log can't be read.
    """
    files = _open_all(path, locked=writes is not None)
    try:
        if tail is not None:
            _seek_to_tail(files, tail)
        for line in _lines(path, files, writes):
            if line == _MISSED:
                on_missed()
                continue
            entry = _entry(line)
            if entry is None or entry.time < since:
                continue
            if until and entry.time > until:
                return
            yield entry
    finally:
        for file in files:
            file.close()


class LogReader:
    """Read a log bit by bit, even if it is rotated meanwhile."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: list[BinaryIO] = []

    def pieces(self, size: int) -> Iterator[str]:
        """Yield what was added since the last call, in pieces of about ``size`` characters: all may not fit in memory.

        Raises:
            OSError: the log can't be read.
        """
        piece, held = [], 0
        for line in _lines(self._path, self._files, lambda: False):
            if entry := _entry(line):
                piece.append(entry.text)
                held += len(entry.text)
            if held >= size:
                yield "".join(piece)
                piece, held = [], 0
        if piece:
            yield "".join(piece)

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files.clear()


def _entry(line: bytes) -> LogEntry | None:
    """Parse a line; return None for half a line, which a full disk or a crash leaves."""
    try:
        found = loads(line)
        values = found["stream"], found["log"], found["time"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return LogEntry(*values) if all(isinstance(value, str) for value in values) else None


def _open_all(path: str, *, locked: bool = True) -> list[BinaryIO]:
    """Open the files of a log, oldest first, each once.

    We open the newest first: if the log is rotated meanwhile, we see a file twice, which we notice, rather than never.

    Args:
        locked: lock the files. Then the writer waits for a while before it removes files that we haven't read yet
            (``native/parent/supervisor_log.c``).
    """
    found: dict[tuple[int, int], BinaryIO] = {}
    number = 0
    while True:
        try:
            file = open(open_to_read(f"{path}.{number}" if number else path), "rb")
        except OSError as error:
            if wrong := damage_of(error, error.filename):
                damage.tell(wrong)
            elif not isinstance(error, FileNotFoundError):
                raise
            # In the middle of a rotation the newest file is missing for a moment.
            if number:
                break
        else:
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) in found:
                file.close()
            else:
                if locked:
                    flock(file.fileno(), LOCK_SH)
                found[status.st_dev, status.st_ino] = file
        number += 1
    return list(reversed(found.values()))


def _seek_to_tail(files: list[BinaryIO], count: int) -> None:
    """Seek in the files so that the last ``count`` lines are left to read."""
    for index in range(len(files) - 1, -1, -1):
        file = files[index]
        position = end = file.seek(0, os.SEEK_END)
        while position > 0 and count > 0:
            start = max(0, position - BLOCK)
            file.seek(start)
            block = file.read(position - start)
            if position == end and block.endswith(b"\n"):
                block = block[:-1]  # no line begins after the last newline
            newlines = block.count(b"\n")
            if newlines >= count:
                for _ in range(count):
                    block = block[: block.rindex(b"\n")]
                position, count = start + len(block) + 1, 0
                break
            count -= newlines
            position = start
        else:
            if position == 0 and end and count > 0:
                count -= 1  # the first line of the file has no newline before it
        file.seek(position if end else 0)
        if count == 0:
            for older in files[:index]:
                older.seek(0, os.SEEK_END)
            return


def _lines(path: str, files: list[BinaryIO], writes: Callable[[], bool] | None) -> Iterator[bytes]:
    """Yield the whole lines of the files, and of newer files as long as the container writes."""
    while True:
        goes_on = writes is not None and writes()
        if not files:
            files += _open_all(path)
        if files:
            yield from _whole_lines(files[0])
            newer = [] if len(files) > 1 or writes is None else _newer(path, files[0])
            if newer:
                yield from _whole_lines(files[0])  # read the rest that was written before the rotation
                files += newer
            if len(files) > 1:
                files.pop(0).close()
                continue
        if not goes_on:
            return
        sleep(POLL_S)


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield lines up to the end, or up to a line that is still being written."""
    for line in iter(file.readline, b""):
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield line


def _newer(path: str, file: BinaryIO) -> list[BinaryIO]:
    """Open the files of the log that are newer than ``file``, oldest first."""
    known = os.fstat(file.fileno())
    found = _open_all(path)
    for index, other in enumerate(found):
        status = os.fstat(other.fileno())
        if (status.st_dev, status.st_ino) == (known.st_dev, known.st_ino):
            for older in found[: index + 1]:
                older.close()
            return found[index + 1 :]
    return found
