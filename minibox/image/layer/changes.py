"""Compare two root file systems: what was added (A), changed (C) or deleted (D), as in `docker diff`.

A file has changed if its type, mode, owner, size, time of change, link target, device number, extended attributes or
content differ, or if it got another name (a hard link). Unlike in Docker, it hasn't changed if overlayfs only copied
it up (it was opened for writing, or its attributes were set to the same values). We read the content only if all else
is equal and the file isn't the very same one, in a layer that both share.

If something changed in a directory, the directory is a C, too, so that a layer has the attributes of all directories
on the way.
"""

from __future__ import annotations

import os
import stat

from minibox.image.layer.mount_points import is_untouched
from minibox.image.layer.stack import Child, Node, Stack, is_gone
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
    """One path that has changed.

    Attributes:
        path: absolute, as `os.fsdecode` returns it if it isn't UTF-8.
        node: the new file, open until you ask for the next change; None for ``D``.
        is_tree: it is a new directory, and what is in it isn't listed.
    """

    kind: Kind
    path: str
    node: Node | None = None
    is_tree: bool = False


class _Level:
    """A directory on the way down, and the names in it that are not compared yet.

    Attributes:
        has_mount_points: it contains mount points that a start made, which are left out.
    """

    def __init__(self, old: Stack, new: Stack, before: Node | None, now: Node, made: frozenset[str]) -> None:
        """
        Args:
            before, now: the old and the new directory; they are closed with this object.
            made: see `changes`.
        """
        self.before, self.now = before, now
        self.has_mount_points = False
        self._waiting = iter(list(self._differing(old, new, made)))

    def __iter__(self) -> Iterator[tuple[str, Child | None, Child | None]]:
        return self

    def __next__(self) -> tuple[str, Child | None, Child | None]:
        """Return the next name with its old and new child, sorted by name."""
        return next(self._waiting)

    def path(self, name: str) -> str:
        return f"/{self.now.path}/{name}" if self.now.path else f"/{name}"

    def _differing(
        self, old: Stack, new: Stack, made: frozenset[str]
    ) -> Iterator[tuple[str, Child | None, Child | None]]:
        try:
            there = self.now.children()
        except OSError as error:
            if not is_gone(error):
                raise
            return
        was = self.before.children() if self.before is not None else {}
        for name in sorted(there.keys() | was.keys()):
            before, now = was.get(name), there.get(name)
            if before and now and old.identity(before) == new.identity(now):
                continue
            if made and now and not before and self.path(name) in made and self._is_mount_point(name, now):
                self.has_mount_points = True
                continue
            yield name, before, now

    def _is_mount_point(self, name: str, listed: Child) -> bool:
        node = _opened(self.now, name, listed)
        if node is None:
            return False
        with node:
            return is_untouched(node)

    def open(self, name: str, was: Child | None, there: Child) -> tuple[Node | None, Node | None]:
        """Open the old and the new file of a name; None for one that is gone."""
        before = _opened(self.before, name, was)
        try:
            return before, _opened(self.now, name, there)
        except BaseException:
            if before is not None:
                before.close()
            raise

    def close(self) -> None:
        self.now.close()
        if self.before is not None:
            self.before.close()


def changes(
    old: Stack,
    new: Stack,
    *,
    descends: bool = False,
    made: frozenset[str] = frozenset(),
    into_new: bool = True,
) -> Iterator[Change]:
    """Yield the changes that turn ``old`` into ``new``: each directory before its content, sorted within it.

    A new tree is listed with everything in it, a deleted one only by its top. A file that disappears while we look at
    it counts as if it never existed.

    Args:
        descends: ``new`` is a container based on ``old``. A file that got another hard link has changed, too, so that a
            layer has all its names.
        made: paths that a start makes to mount on. If ``old`` lacks them they are left out, unless the container
            changed them.
        into_new: list what is in new directories, too.

    Raises:
        OSError: a directory can't be read; with its path.
        Unsupported: see `Node.children`.
    """
    comparison = _Comparison(old, new, descends)
    unreported: list[Change | None] = []  # for each directory on the way down, its change if not yielded yet
    if old.root.layers and new.root.layers and comparison.differ(old.root, new.root):
        yield Change("C", "/", new.root)
    levels = [_Level(old, new, old.root, new.root, made)]
    while levels:
        level = levels[-1]
        try:
            name, was, there = next(level)
        except StopIteration:
            levels.pop().close()
            del unreported[len(levels) - 1 :]
            continue
        path = level.path(name)
        if there is None:
            yield from _told(unreported, Change("D", path))
            continue
        before, now = level.open(name, was, there)
        try:
            if now is None:
                continue
            below = None
            if now.is_directory and (into_new or before is not None):
                below = _Level(old, new, before if before and before.is_directory else None, now, made)
            if below and below.has_mount_points:  # they may be why it is new, or has a new time
                differs = before is not None and comparison.differ(before, now, times=False)
            else:
                differs = before is None or comparison.differ(before, now)
            change = Change("A" if before is None else "C", path, now, now.is_directory and below is None)
            if differs:
                yield from _told(unreported, change)
            if below:
                levels.append(below)
                unreported.append(None if differs else change)
        finally:
            for node in (before, now):
                if node is not None and node is not levels[-1].before and node is not levels[-1].now:
                    node.close()


def _told(unreported: list[Change | None], change: Change) -> Iterator[Change]:
    """Yield a change, and before it the directories above that weren't yielded yet."""
    yield from (each for each in unreported if each is not None)
    unreported[:] = [None] * len(unreported)
    yield change


class _Comparison:
    def __init__(self, old: Stack, new: Stack, descends: bool) -> None:
        self._old, self._new, self._descends = old, new, descends
        self._linked_anew: set[tuple[int, int]] | None = None
        # overlayfs copies up a single name: if a file above the old layers has several, the container linked it.
        self._above = new.identities[-len(old.identities) :] == old.identities

    def differ(self, before: Node, now: Node, *, times: bool = True) -> bool:
        was, status = before.status, now.status
        if before.identity == now.identity:
            return False
        if was.st_mode != status.st_mode or before.owner != now.owner:
            return True
        # A container's root directory is made with the container, so its time always differs.
        if times and now.path and not _same_time(was.st_mtime_ns, status.st_mtime_ns):
            return True
        if stat.S_ISLNK(status.st_mode):
            return before.readlink() != now.readlink()
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            return was.st_rdev != status.st_rdev
        if stat.S_ISREG(status.st_mode):
            if was.st_size != status.st_size or (self._descends and status.st_nlink > 1 and self._is_linked_anew(now)):
                return True
            return before.xattrs() != now.xattrs() or _contents_differ(before, now)
        return stat.S_ISDIR(status.st_mode) and before.xattrs() != now.xattrs()

    def _is_linked_anew(self, now: Node) -> bool:
        """Tell whether a file got another name."""
        if self._above:
            return True
        if self._linked_anew is None:
            self._linked_anew = _linked_anew(self._old, self._new)
        return now.identity in self._linked_anew


def _linked_anew(old: Stack, new: Stack) -> set[tuple[int, int]]:
    """Return the files, by inode, that got a name which another file had before, or which is new.

    Counting names wouldn't help: a layer's files may be linked to those of other layers (storage driver copy), and a
    name may have been removed.
    """
    before_of: dict[tuple[int, int], tuple[int, int] | None] = {}
    found: set[tuple[int, int]] = set()
    levels = [_Level(old, new, old.root, new.root, frozenset())]
    while levels:
        level = levels[-1]
        try:
            name, was, there = next(level)
        except StopIteration:
            levels.pop().close()
            continue
        before, now = level.open(name, was, there) if there is not None else (None, None)
        if now is not None and now.is_directory:
            levels.append(_Level(old, new, before if before and before.is_directory else None, now, frozenset()))
            continue
        if now is not None and stat.S_ISREG(now.status.st_mode) and now.status.st_nlink > 1:
            identity = before.identity if before is not None else None
            if before_of.setdefault(now.identity, identity) != identity or identity is None:
                found.add(now.identity)
        for node in (before, now):
            if node is not None:
                node.close()
    return found


def _opened(directory: Node | None, name: str, listed: Child | None) -> Node | None:
    if directory is None or listed is None:
        return None
    try:
        return directory.child(name, listed)
    except OSError as error:
        if not is_gone(error):
            raise
        return None


def _contents_differ(before: Node, now: Node) -> bool:
    with open(before.open(os.O_RDONLY), "rb", 0) as was, open(now.open(os.O_RDONLY), "rb", 0) as file:
        while (chunk := file.read(CHUNK_BYTES)) == was.read(CHUNK_BYTES):
            if not chunk:
                return False
    return True


def _same_time(was_ns: int, now_ns: int) -> bool:
    """Tell whether two times are equal, as far as we know: in a layer's tar, times may be in whole seconds."""
    if was_ns == now_ns:
        return True
    return was_ns // SECOND_NS == now_ns // SECOND_NS and 0 in (was_ns % SECOND_NS, now_ns % SECOND_NS)
