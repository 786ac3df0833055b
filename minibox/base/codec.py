"""The format of our state files: JSON objects that carry their kind and the number of their format.

A module that keeps a file declares its kind once, and reads and writes it only through that:

    PORTS = FileKind("ports", {"Ports": [{"Address": str, "Port": Between(1, 65535)}]})
    PORTS.write(path, {"Ports": [...]})
    PORTS.read(path)["Ports"]

A file that can't be decoded raises `Damaged` with the path and the reason, whatever is wrong with it; a file from a
newer minibox raises `NewerFormat`. Code that lists many files reports these errors (`base.damage`) and goes on.
"""

from __future__ import annotations

import os
from errno import EIO, EISDIR, ELOOP, ENODEV, ENXIO

from minibox.base.files import FileTooLarge, NotRegularFile, put_aside, read_fd, read_file, replace_file
from minibox.base.json_text import dumps, loads
from minibox.base.shape import check, check_texts, name_of
from minibox.errors import Damaged, MiniboxError, NewerFormat, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Fields = dict[str, Any]

BYTES_MAX = 64 << 20  # the largest file that we write or read
KIND, FORMAT = "Kind", "Format"
NO_FILE_OF_OURS = (
    EISDIR,
    ELOOP,
    ENODEV,
    ENXIO,
    EIO,
)  # errors of open(2) and read(2): a directory, a link, a socket, a bad disk
BROKEN = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)
SURROGATES = "\\ud", "\\uD"


class FileKind:
    """One kind of state file."""

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
        """Declare a kind of file.

        Args:
            name: stored in the file as its kind.
            shape: what the fields must look like; see `minibox.base.shape`.
            number: the format that is written. Older ones can still be read.
            before: decodes files from before formats had numbers; `plain` if they were JSON objects.
            indented: indent the JSON; otherwise it is one line.
            empty: the fields of an empty file, which a full disk can leave behind; None if that counts as damage.
        """
        self.name, self.number, self._empty = name, number, empty
        self._shape, self._before, self._start = shape, before, "\n" if indented else ""

    def encode(self, fields: Fields) -> bytes:
        """Return the content of the file for these fields.

        Raises:
            MiniboxError: it would be larger than `read` accepts.
        """
        data = (dumps({KIND: self.name, FORMAT: self.number, **fields}, self._start) + "\n").encode()
        if len(data) > BYTES_MAX:
            raise MiniboxError(
                f"write the file of {self.name}: {len(data)} bytes, but a file may have at most {BYTES_MAX}"
            )
        return data

    def decode(self, data: bytes, path: str) -> Fields:
        """Return the fields that `encode` was given.

        Args:
            path: named in the error.

        Raises:
            Damaged, NewerFormat: they can't be decoded.
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
                raise ValueError("it is not a JSON object")
            return self._before(data)
        fields = plain(data)
        number = fields.pop(FORMAT, None)
        if number is None:
            if self._before is None:
                raise ValueError(f"it has no {FORMAT}")
            return fields if self._before is plain else self._before(data)
        kind = fields.pop(KIND, None)
        if kind != self.name:
            raise ValueError(f"its Kind is {kind!r}, not {self.name}")
        if type(number) is not int or number < 1:
            raise ValueError(f"its {FORMAT} is {number!r}")
        if number > self.number:
            raise NewerFormat(path, number, self.number)
        return fields

    def read(self, path: str) -> Fields:
        """Return the fields of a file.

        Raises:
            FileNotFoundError: there is no such file.
            Damaged, NewerFormat: it can't be decoded, or it is not a regular file.
            OSError: it can't be opened, for a reason that says nothing about its content.
        """
        try:
            data = read_file(path, BYTES_MAX)
        except OSError as error:
            if damage := damage_of(error, path):
                raise damage from None
            raise
        return self.decode(data, path)

    def read_fd(self, fd: int, path: str) -> Fields:
        """Like `read`, for a file that is open already; ``path`` is named in errors."""
        try:
            data = read_fd(fd, BYTES_MAX, path)
        except OSError as error:
            if damage := damage_of(error, path):
                raise damage from None
            raise
        return self.decode(data, path)

    def write(self, path: str, fields: Fields, *, mode: int = 0o600, durable: bool = False) -> None:
        """Replace a file, like `files.replace_file`. A directory that is in the way is put aside.

        Raises:
            OSError: it can't be written; with the path.
            MiniboxError: the content is too large.
        """
        data = self.encode(fields)
        try:
            replace_file(path, data, mode=mode, durable=durable)
        except IsADirectoryError:
            put_aside(path)
            replace_file(path, data, mode=mode, durable=durable)

    def change(self, path: str, changed: Callable[[Fields | None], Fields | None], *, durable: bool = False) -> None:
        """Read a file, pass its fields to ``changed`` and write what that returns, while holding the directory's lock.

        Args:
            changed: gets None if there is no file yet; returns the new fields, or None to leave the file alone.

        Raises:
            FileNotFoundError: the directory doesn't exist.
            Damaged, NewerFormat, OSError: from `read` and `write`.
        """
        from minibox.base.lock import Lock

        with Lock(os.path.dirname(path)):
            try:
                before: Fields | None = self.read(path)
            except FileNotFoundError:
                before = None
            after = changed(before)
            if after is not None:
                self.write(path, after, durable=durable)


def plain(data: bytes) -> Fields:
    """Decode a JSON object without checking its fields.

    Raises:
        ValueError, RecursionError: it is not a JSON object.
    """
    fields = loads(data)
    if not isinstance(fields, dict):
        raise ValueError(f"it is {name_of(type(fields))} in JSON, not an object")
    if any(mark.encode() in data for mark in SURROGATES):
        check_texts(fields)
    return fields


def damage_of(error: OSError, path: str) -> Damaged | None:
    """Turn an error of reading one of our files into `Damaged`; None if it says nothing about the file itself."""
    if isinstance(error, (NotRegularFile, FileTooLarge)):
        return Damaged(path, str(error.strerror))
    return Damaged(path, kernel_says(error)) if error.errno in NO_FILE_OF_OURS else None
