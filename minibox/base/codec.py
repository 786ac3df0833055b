"""The one codec of state: what we keep in a file of ours is JSON, with its kind and the number of its format in it.

A module that keeps something declares it once, and encodes and decodes it by nothing else:

    PORTS = FileKind("ports", {"Ports": [{"Address": str, "Port": Between(1, 65535)}]})
    PORTS.write(path, {"Ports": [...]})
    PORTS.read(path)["Ports"]

What can't be decoded is damage of that thing alone: `Damaged`, with the path and the reason, whatever is wrong with it;
what a newer minibox has written is `NewerFormat`. Who lists many things tells of it (`base.damage`) and goes on.
"""

from __future__ import annotations

import os
from errno import EIO, EISDIR, ELOOP, ENODEV, ENXIO

from minibox.base.files import FileTooLarge, NotRegularFile, put_aside, read_fd, read_file, replace_file
from minibox.base.lock import Lock
from minibox.base.shape import check, check_texts, name_of
from minibox.errors import Damaged, MiniboxError, NewerFormat, kernel_says
from minibox.json_text import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Fields = dict[str, Any]

BYTES_MAX = 64 << 20  # of a file, for who writes it and for who reads it
KIND, FORMAT = "Kind", "Format"
NO_FILE_OF_OURS = (
    EISDIR,
    ELOOP,
    ENODEV,
    ENXIO,
    EIO,
)  # of open(2) and read(2): a directory, a link, a socket, a bad disk
BROKEN = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)
SURROGATES = "\\ud", "\\uD"


class FileKind:
    """One kind of file that we keep."""

    def __init__(
        self,
        name: str,
        shape: Any,
        *,
        number: int = 1,
        before: Callable[[bytes], Fields] | None = None,
        indented: bool = True,
        empty: Fields | None = None,
    ) -> None:
        """Declare it.

        Args:
            number: of the format that is written; those up to it are read.
            before: reads what was written before there was a number; `plain` for JSON.
            indented: else it is one line.
            empty: what an empty file says; None: it is damaged. A full disk may take no more.
        """
        self.name, self.number, self._empty = name, number, empty
        self._shape, self._before, self._start = shape, before, "\n" if indented else ""

    def encode(self, fields: Fields) -> bytes:
        """The content of such a file.

        Raises:
            MiniboxError: it is more than can be read again.
        """
        data = (dumps({KIND: self.name, FORMAT: self.number, **fields}, self._start) + "\n").encode()
        if len(data) > BYTES_MAX:
            raise MiniboxError(
                f"keep {self.name}: {len(data)} bytes are more than the {BYTES_MAX} that a file may have"
            )
        return data

    def decode(self, data: bytes, path: str) -> Fields:
        """What `encode` was given.

        Args:
            path: for the error.

        Raises:
            Damaged, NewerFormat
        """
        try:
            fields = self._decode(data, path)
            check(fields, self._shape)
        except BROKEN as error:
            raise Damaged(path, str(error) or type(error).__name__) from None
        return fields

    def _decode(self, data: bytes, path: str) -> Fields:
        if not data:
            if self._empty is None:
                raise ValueError("it is empty")
            return dict(self._empty)
        if not data.startswith(b"{"):
            if self._before is None or self._before is plain:
                raise ValueError("it is no JSON object")
            return self._before(data)
        fields = plain(data)
        number = fields.pop(FORMAT, None)
        if number is None:
            if self._before is None:
                raise ValueError(f"it has no {FORMAT}")
            return fields if self._before is plain else self._before(data)
        kind = fields.pop(KIND, None)
        if kind != self.name:
            raise ValueError(f"it is of the kind {kind!r}, and not {self.name}")
        if type(number) is not int or number < 1:
            raise ValueError(f"its {FORMAT} is {number!r}")
        if number > self.number:
            raise NewerFormat(path, number, self.number)
        return fields

    def read(self, path: str) -> Fields:
        """What is in a file.

        Raises:
            FileNotFoundError
            Damaged, NewerFormat: it can't be decoded; or it is no regular file.
            OSError: it can't be opened otherwise, which says nothing of the file.
        """
        try:
            data = read_file(path, BYTES_MAX)
        except OSError as error:
            if damage := damage_of(error, path):
                raise damage from None
            raise
        return self.decode(data, path)

    def read_fd(self, fd: int, path: str) -> Fields:
        """The same of one that is open."""
        try:
            data = read_fd(fd, BYTES_MAX, path)
        except OSError as error:
            if damage := damage_of(error, path):
                raise damage from None
            raise
        return self.decode(data, path)

    def write(self, path: str, fields: Fields, *, mode: int = 0o600, durable: bool = False) -> None:
        """Write a file anew, as `files.replace_file`; a directory that is in its place is put aside.

        Raises:
            OSError: with the path.
            MiniboxError: it is too large.
        """
        data = self.encode(fields)
        try:
            replace_file(path, data, mode=mode, durable=durable)
        except IsADirectoryError:
            put_aside(path)
            replace_file(path, data, mode=mode, durable=durable)

    def change(self, path: str, changed: Callable[[Fields | None], Fields | None], *, durable: bool = False) -> None:
        """Read a file and write what ``changed`` makes of it, alone among all who do; nothing for None.

        Args:
            changed: is given None when there is no file yet.

        Raises:
            FileNotFoundError: there is no directory for it.
            Damaged, NewerFormat, OSError: as `read` and `write`.
        """
        with Lock(os.path.dirname(path)):
            try:
                before: Fields | None = self.read(path)
            except FileNotFoundError:
                before = None
            after = changed(before)
            if after is not None:
                self.write(path, after, durable=durable)


def plain(data: bytes) -> Fields:
    """A JSON object, whatever is in it.

    Raises:
        ValueError, RecursionError: it is none.
    """
    fields = loads(data)
    if not isinstance(fields, dict):
        raise ValueError(f"it is {name_of(type(fields))} of JSON, and no object")
    if any(mark.encode() in data for mark in SURROGATES):
        check_texts(fields)
    return fields


def damage_of(error: OSError, path: str) -> Damaged | None:
    """What was found in place of a file of ours; None where the error says nothing of the file."""
    if isinstance(error, (NotRegularFile, FileTooLarge)):
        return Damaged(path, f"it is {error.strerror}")
    return Damaged(path, kernel_says(error)) if error.errno in NO_FILE_OF_OURS else None
