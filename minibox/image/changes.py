"""What changed from one root file system to another: added (A), changed (C), deleted (D), as `docker diff` says it.

A file has changed when its type, mode, owner, size, time of change, link's target, device number, extended
attributes or content have, or it has got another name (a hard link). Unlike Docker, a file that overlayfs has only
copied up (it was opened for writing, or its attributes were set to what they were) has not. The content is read only where all the rest is equal and the
file is not the very same one, in a layer that both have.

A directory that something changed in is a C too, so a layer has the attributes of all directories on the way.
"""

from __future__ import annotations

import os
import stat

from minibox.image.mount_points import is_untouched
from minibox.image.stack import is_gone
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    from minibox.image.stack import Child, Node, Stack

    Kind = Literal["A", "C", "D"]

CHUNK_BYTES = 1 << 20
SECOND_NS = 1_000_000_000


@record
class Change:
    """One path that is not as it was.

    Attributes:
        path: absolute; bytes that are no UTF-8 as `os.fsdecode` gives them.
        node: what is there now, open until the next change is asked for; None for ``D``.
    """

    kind: Kind
    path: str
    node: Node | None = None


class _Level:
    """A directory on the way down, and the names in it that are still to be compared.

    Attributes:
        has_mount_points: something in it was made by a start, and is left out.
    """

    def __init__(self, old: Stack, new: Stack, before: Node | None, now: Node, made: frozenset[str]) -> None:
        """
        Args:
            before, now: the directory; closed with it.
            made: as of `changes`.
        """
        self.before, self.now = before, now
        self.has_mount_points = False
        self._waiting = iter(list(self._differing(old, new, made)))

    def __iter__(self) -> Iterator[tuple[str, Child | None, Child | None]]:
        return self

    def __next__(self) -> tuple[str, Child | None, Child | None]:
        """Name, old and new child, sorted by name."""
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
        """What there was and what there is now of a name, None for what is gone."""
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


def changes(old: Stack, new: Stack, *, descends: bool = False, made: frozenset[str] = frozenset()) -> Iterator[Change]:
    """What has to be done to ``old`` to have ``new``: each directory before what is in it, sorted within it.

    Of a tree that is new all is told; of one that was deleted, its top only. What disappears while it
    is looked at was never there.

    Args:
        descends: ``new`` is a container on ``old``: a file that was linked to has changed too, so that a layer has
            all its names.
        made: paths that a start makes to mount on: where ``old`` lacks them they are left out, unless something has
            been done to them.

    Raises:
        OSError: a directory can't be read, with its path.
        Unsupported: see `Node.children`.
    """
    comparison = _Comparison(old, new, descends)
    unreported: list[Change | None] = []  # for each directory on the way down: itself, unless that was told
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
            if now.is_directory:
                below = _Level(old, new, before if before and before.is_directory else None, now, made)
            if below and below.has_mount_points:  # which is why it is new, or has a new time
                differs = before is not None and comparison.differ(before, now, times=False)
            else:
                differs = before is None or comparison.differ(before, now)
            change = Change("A" if before is None else "C", path, now)
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
    """A change, after the directories above that have not been told."""
    yield from (each for each in unreported if each is not None)
    unreported[:] = [None] * len(unreported)
    yield change


class _Comparison:
    def __init__(self, old: Stack, new: Stack, descends: bool) -> None:
        self._old, self._new, self._descends = old, new, descends
        self._linked_anew: set[tuple[int, int]] | None = None
        # overlayfs copies a file up alone: a hard link among what is above the old layers was made there.
        self._above = new.identities[-len(old.identities) :] == old.identities

    def differ(self, before: Node, now: Node, *, times: bool = True) -> bool:
        was, status = before.status, now.status
        if before.identity == now.identity:
            return False
        if was.st_mode != status.st_mode or before.owner != now.owner:
            return True
        # The root of a container is made with it, and so has its time.
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
        """Whether a file has got another name."""
        if self._above:
            return True
        if self._linked_anew is None:
            self._linked_anew = _linked_anew(self._old, self._new)
        return now.identity in self._linked_anew


def _linked_anew(old: Stack, new: Stack) -> set[tuple[int, int]]:
    """The files, by inode, of which one name was another's before. How many names there were tells nothing: a layer's
    files may be linked to those of other layers (storage driver copy), and a name may just be gone."""
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
    """Whether two times are the same, as far as both are known: a layer's tar has whole seconds."""
    if was_ns == now_ns:
        return True
    return was_ns // SECOND_NS == now_ns // SECOND_NS and 0 in (was_ns % SECOND_NS, now_ns % SECOND_NS)
