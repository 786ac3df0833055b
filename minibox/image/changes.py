"""What changed from one root file system to another: added (A), changed (C), deleted (D), as `docker diff` says it.

A file has changed when its type, mode, owner, size, time of change, link's target, device number, extended
attributes or content have. Unlike Docker, a file that overlayfs has only copied up (it was opened for writing, or
its attributes were set to what they were) has not. The content is read only where all the rest is equal and the
file is not the very same one, in a layer that both have.

A directory that something changed in is a C too, so a layer has the attributes of all directories on the way.
"""

from __future__ import annotations

import os
import stat

from minibox.image.stack import LOOK, Node, Stack, is_gone
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    Kind = Literal["A", "C", "D"]

CHUNK_BYTES = 1 << 20
SECOND_NS = 1_000_000_000


@record
class Change:
    """One path that is not as it was.

    Attributes:
        path: absolute; bytes that are no UTF-8 as `os.fsdecode` gives them.
        node: what is there now; None for ``D``.
    """

    kind: Kind
    path: str
    node: Node | None = None


def changes(old: Stack, new: Stack, *, descends: bool = False) -> Iterator[Change]:
    """What has to be done to ``old`` to have ``new``: each directory before what is in it, sorted within it.

    Of a tree that is new all is told; of one that was deleted, its top only. What disappears while it
    is looked at was never there.

    Args:
        descends: ``new`` is a container on ``old``: a file that was linked to has changed too, so that a layer has
            both its names.

    Raises:
        OSError: a directory can't be read, with its path.
        Unsupported: see `Stack.children`.
    """
    comparison = _Comparison(old, new, descends)
    unreported: list[Change | None] = []  # for each directory on the way down: itself, unless that was told
    if old.root.layers and new.root.layers and comparison.differ(old.root, new.root):
        yield Change("C", "/", new.root)
    levels = [comparison.entries(old.root, new.root)]
    while levels:
        try:
            path, before, now = next(levels[-1])
        except StopIteration:
            levels.pop()
            del unreported[len(levels) - 1 :]
            continue
        change = comparison.change(path, before, now)
        if change is not None:
            yield from (each for each in unreported if each is not None)
            unreported = [None] * len(unreported)
            yield change
        if now is not None and now.is_directory:
            levels.append(comparison.entries(before, now))
            unreported.append(None if change is not None else Change("C", path, now))


class _Comparison:
    def __init__(self, old: Stack, new: Stack, descends: bool) -> None:
        self._old, self._new, self._descends = old, new, descends
        # overlayfs copies a file up alone: a hard link among what is above the old layers was made there.
        self._above = new.identities[-len(old.identities) :] == old.identities

    def entries(self, before: Node | None, now: Node) -> Iterator[tuple[str, Node | None, Node | None]]:
        """Path, old and new node of all that may differ in a directory, sorted by name."""
        try:
            there = self._new.children(now)
        except OSError as error:
            if not is_gone(error):
                raise
            return
        was = self._old.children(before) if before is not None and before.is_directory else {}
        for name in sorted(there.keys() | was.keys()):
            old, new = was.get(name), there.get(name)
            if old and new and self._old.identity(old) == self._new.identity(new):
                continue
            yield f"/{now.path}/{name}" if now.path else f"/{name}", old, new

    def change(self, path: str, before: Node | None, now: Node | None) -> Change | None:
        """The change of one path itself, or None."""
        if now is None:
            return Change("D", path)
        try:
            if before is None:
                return Change("A", path, now)
            return Change("C", path, now) if self.differ(before, now) else None
        except OSError as error:
            if not is_gone(error):
                raise
            return None

    def differ(self, before: Node, now: Node) -> bool:
        was_fd, fd = self._old.open(before, LOOK), -1
        try:
            fd = self._new.open(now, LOOK)
            was, status = os.fstat(was_fd), os.fstat(fd)
            if (was.st_dev, was.st_ino) == (status.st_dev, status.st_ino):
                return False
            if was.st_mode != status.st_mode or self._old.owner(before, was) != self._new.owner(now, status):
                return True
            # The root of a container is made with it, and so has its time.
            if now.path and not _same_time(was.st_mtime_ns, status.st_mtime_ns):
                return True
            if stat.S_ISLNK(status.st_mode):
                return os.readlink(b"", dir_fd=was_fd) != os.readlink(b"", dir_fd=fd)
            if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                return was.st_rdev != status.st_rdev
            if stat.S_ISREG(status.st_mode):
                linked = status.st_nlink > 1 and (self._above or status.st_nlink != was.st_nlink)
                return (
                    (self._descends and linked) or was.st_size != status.st_size or self._contents_differ(before, now)
                )
            return stat.S_ISDIR(status.st_mode) and self._attributes_differ(before, now)
        finally:
            os.close(was_fd)
            if fd >= 0:
                os.close(fd)

    def _attributes_differ(self, before: Node, now: Node) -> bool:
        was_fd = self._old.open(before, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fd = self._new.open(now, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                return self._old.xattrs(was_fd, before) != self._new.xattrs(fd, now)
            finally:
                os.close(fd)
        finally:
            os.close(was_fd)

    def _contents_differ(self, before: Node, now: Node) -> bool:
        if self._attributes_differ(before, now):
            return True
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(self._old.open(before, flags), "rb", 0) as was, open(self._new.open(now, flags), "rb", 0) as file:
            while (chunk := file.read(CHUNK_BYTES)) == was.read(CHUNK_BYTES):
                if not chunk:
                    return False
        return True


def _same_time(was_ns: int, now_ns: int) -> bool:
    """Whether two times are the same, as far as both are known: a layer's tar has whole seconds."""
    if was_ns == now_ns:
        return True
    return was_ns // SECOND_NS == now_ns // SECOND_NS and 0 in (was_ns % SECOND_NS, now_ns % SECOND_NS)
