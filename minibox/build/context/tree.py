"""A directory tree as a build sees it: each directory is read when it is needed, and only once.

Links are never followed by the kernel, so nothing outside the tree is ever opened: `Tree.resolve` follows them by their
text, as if the tree were the root.
"""

from __future__ import annotations

import os
import stat
import struct
from errno import ELOOP, ENOENT, ENOTDIR

from minibox.build.context.patterns import Patterns
from minibox.errors import BuildError, kernel_says
from minibox.linux.files import open_beneath
from minibox.linux.listing import list_directory, record_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.build.context.patterns import Flags

READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
LOOK = os.O_PATH | os.O_NOFOLLOW
SYMLINKS_MAX = 40  # path_resolution(7)
MODE = struct.Struct("=I")
SIZE, SIZE_AT = struct.Struct("=Q"), struct.calcsize("=QQ")
MODE_AT = struct.calcsize("=QQQqq")  # where a record has the mode
KINDS = {
    stat.S_IFREG: "a file", stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symlink", stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


class Tree:
    """The files of a directory, without the ignored ones; use it in a ``with`` statement.

    Paths are relative to the tree's root, "" for the root itself. A file is told by its record: see
    `minibox.linux.listing`.
    """

    def __init__(self, path: str, ignored: Patterns | None = None, what: str = "the context") -> None:
        """Open the directory.

        Args:
            what: what the tree is, for messages.

        Raises:
            BuildError: it can't be opened.
        """
        self.path, self.what = path, what
        self.ignored = ignored or Patterns(())
        try:
            self.fd = os.open(path, READ_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise BuildError(f"open {what} {ascii(path)}: {kernel_says(error)}") from error
        self.root = record_of(os.fstat(self.fd))
        self._children: dict[str, dict[str, bytes]] = {}
        self._flags: dict[str, Flags] = {"": self.ignored.none}

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory. You can call it twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def children(self, directory: str) -> dict[str, bytes]:
        """Return the files in a directory by name, sorted: their records.

        Raises:
            BuildError: it can't be read.
        """
        found = self._children.get(directory)
        if found is None:
            try:
                found = self._children[directory] = self._read(directory)
            except RecursionError:
                where = f"{ascii(directory[:60])}... in {self.what}"
                raise BuildError(
                    f"{where}: directories are nested too deep", f"name it in {self.ignored.name}"
                ) from None
        return found

    def note(self, path: str, record: bytes) -> None:
        """Note that a file has changed since its directory was read."""
        if not path:
            self.root = record
        else:
            parent, _, name = path.rpartition("/")
            self._children[parent][name] = record

    def below(self, directory: str) -> Iterator[tuple[str, bytes]]:
        """Yield the path and the record of all that is below a directory: each directory before what is in it."""
        stack = [iter(self._paths(directory))]
        while stack:
            for path, record in stack[-1]:
                yield path, record
                if is_directory(record):
                    stack.append(iter(self._paths(path)))
                    break
            else:
                stack.pop()

    def find(self, path: str) -> bytes | None:
        """Return the record of a path, without following links; None if there is none."""
        found, here = self.root, ""
        for part in path.split("/") if path else ():
            below = self.children(here).get(part) if is_directory(found) else None
            if below is None:
                return None
            found, here = below, f"{here}/{part}" if here else part
        return found

    def resolve(self, path: str) -> tuple[str, bytes] | None:
        """Follow the links of a path, its last part too, as if the tree were the root. ``..`` of the root is the root.

        Returns:
            The path without links, and its record; None if there is none.

        Raises:
            BuildError: there are too many links.
        """
        waiting, found, links = path.split("/")[::-1], [""], 0
        while waiting:
            part = waiting.pop()
            if part == "..":
                del found[max(1, len(found) - 1) :]
            if part in ("", ".", ".."):
                continue
            here = found[-1]
            below = f"{here}/{part}" if here else part
            record = self.children(here).get(part)
            if record is None:
                return None
            if stat.S_ISLNK(mode_of(record)):
                links += 1
                if links > SYMLINKS_MAX:
                    raise BuildError(f"{ascii(path)} in {self.what}: {os.strerror(ELOOP).lower()}")
                target = self.readlink(below)
                if target.startswith("/"):
                    del found[1:]
                waiting += target.split("/")[::-1]
            elif is_directory(record):
                found.append(below)
            elif any(each not in ("", ".") for each in waiting):
                return None
            else:
                return below, record
        record = self.find(found[-1])
        return (found[-1], record) if record is not None else None

    def readlink(self, path: str) -> str:
        """Return the target of a symlink.

        Raises:
            BuildError: it isn't one any more.
        """
        fd = self.open(path, LOOK)
        try:
            return os.readlink("", dir_fd=fd)
        except OSError as error:
            raise self.refusal("read", path, error) from error
        finally:
            os.close(fd)

    def open(self, path: str, flags: int) -> int:
        """Open a file of the tree without following links.

        Raises:
            BuildError: it can't be opened.
        """
        try:
            return open_beneath(self.fd, path or ".", flags)
        except OSError as error:
            raise self.refusal("open", path, error) from error

    def refusal(self, tried: str, path: str, error: OSError) -> BuildError:
        """Turn the kernel's answer for one file into words."""
        if error.errno in (ENOENT, ENOTDIR, ELOOP):
            return BuildError(f"{ascii(path or '.')} in {self.what} was changed during the build", "build it again")
        hint = "make it readable, or name it in .dockerignore if the build doesn't need it"
        return BuildError(f"{tried} {ascii(path or '.')} in {self.what}: {kernel_says(error)}", hint)

    def _paths(self, directory: str) -> list[tuple[str, bytes]]:
        start = f"{directory}/" if directory else ""
        return [(start + name, record) for name, record in self.children(directory).items()]

    def _read(self, directory: str) -> dict[str, bytes]:
        fd = self.open(directory, READ_DIRECTORY)
        try:
            found = sorted(list_directory(fd))
        except OSError as error:
            raise self.refusal("read", directory, error) from error
        finally:
            os.close(fd)
        return dict(self._without_ignored(directory, found) if self.ignored else found)

    def _without_ignored(self, directory: str, found: list[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        start, above, matches = f"{directory}/" if directory else "", self._flags[directory], self.ignored.matches
        for name, record in found:
            path = start + name
            matched, flags = matches(path, above)
            if is_directory(record):
                self._flags[path] = flags
                if matched:
                    # It exists if something in it is taken back in.
                    matched = not (self.ignored.may_except_below(path) and self.children(path))
            if not matched:
                yield name, record


def mode_of(record: bytes) -> int:
    """Return the mode of a file, with its kind; stat(2)."""
    mode: int = MODE.unpack_from(record, MODE_AT)[0]
    return mode


def size_of(record: bytes) -> int:
    """Return the size of a file in bytes."""
    size: int = SIZE.unpack_from(record, SIZE_AT)[0]
    return size


def is_directory(record: bytes) -> bool:
    """Tell whether a record is that of a directory."""
    return mode_of(record) & 0o170000 == stat.S_IFDIR


def kind_of(record: bytes) -> str:
    """Return what a file is, in words."""
    return KINDS.get(stat.S_IFMT(mode_of(record)), "an unknown kind of file")
