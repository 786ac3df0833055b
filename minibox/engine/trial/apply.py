"""Apply to the host what a command has changed on its overlays.

Every path is opened below the root of the trial without following a symlink, so nothing that the command left behind,
and nobody who changes the host meanwhile, can lead a write elsewhere. A file that isn't what it was when the command saw
it is a conflict. A regular file is written under another name and renamed, so that readers see the old or the new one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from errno import ENXIO

from minibox.base.files import close_descriptors, closing
from minibox.engine.trial.changes import Found, Overlays, identity, status_of
from minibox.engine.trial.host_tree import HostTree, below, is_below
from minibox.errors import MiniboxError, UsageError, kernel_says, suppress
from minibox.image.layer import tar
from minibox.image.layer.owners import CAPABILITY
from minibox.image.layer.pack import KINDS
from minibox.image.layer.placer import Base, Placer
from minibox.image.layer.stack import Node
from minibox.linux.files import open_beneath
from minibox.linux.mount_table import mount_points
from minibox.linux.removal import remove_at
from minibox.record import record

READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
CHUNK_BYTES = 1 << 20
SET_IDS = stat.S_ISUID | stat.S_ISGID


@record
class Conflict:
    """A path of the host that has changed since the command saw it, and how."""

    path: str
    why: str


@record
class Applied:
    """What was applied.

    Attributes:
        count: the number of changed paths.
        left_out: paths that were applied without their privileges or not at all, with the reason.
    """

    count: int
    left_out: tuple[tuple[str, str], ...]


def conflicts(overlays: Overlays, found: Iterable[Found], began_ns: int) -> list[Conflict]:
    """Compare the host with what it was when the command ran.

    Args:
        began_ns: when the command started, by the clock that stamps files.

    Raises:
        OSError: a file of the host can't be looked at.
    """
    told = []
    made = {""}  # directories that are made before what is in them
    for each in found:
        why = _conflict(overlays.over_fd, each, began_ns)
        above = each.path.rpartition("/")[0]
        if not why and each.kind != "D" and above not in made:
            status = status_of(overlays.over_fd, above)
            if status is None or not stat.S_ISDIR(status.st_mode):
                why = "the directory that it is in was removed"
        if stat.S_ISDIR(each.mode):
            made.add(each.path)
        if why and not _is_applied(overlays, each):
            told.append(Conflict(each.path, why))
    return told


def _conflict(over_fd: int, found: Found, began_ns: int) -> str:
    status = status_of(over_fd, found.path)
    if status is None:
        return "it was removed" if found.before and found.kind != "D" else ""
    if found.before is None:
        return "it was made"
    now = identity(status)
    assert now
    was_directory = stat.S_ISDIR(found.before[2])
    if was_directory and stat.S_ISDIR(status.st_mode):
        if now[:5] != found.before[:5]:
            return "it was replaced, or its owner or mode changed"
        if not stat.S_ISDIR(found.mode):  # everything in it is removed
            changed = _changed_below(over_fd, found.path, began_ns)
            return f"{changed} changed in it" if changed else ""
        return ""
    if now != found.before:
        return "it changed"
    return "it changed while the command ran" if status.st_ctime_ns >= began_ns else ""


def _is_applied(overlays: Overlays, found: Found) -> bool:
    """Tell whether the host has the new file already: an earlier attempt to apply all of them ended half way."""
    status = status_of(overlays.over_fd, found.path)
    if status is None or found.kind == "D":
        return False
    with overlays.opened(found) as node:
        new, (uid, gid) = node.status, node.owner
    was = (status.st_mode & ~SET_IDS, status.st_uid, status.st_gid, status.st_mtime_ns)
    same_size = status.st_size == new.st_size or not stat.S_ISREG(new.st_mode)
    return same_size and was == (found.mode & ~SET_IDS, uid, gid, new.st_mtime_ns)


def _changed_below(over_fd: int, path: str, began_ns: int) -> str:
    """Return a path below a directory of the host that has changed since then; "" if there is none."""
    with closing(open_beneath(over_fd, path[1:], READ_DIRECTORY)) as top:
        for place, directories, names, fd in os.fwalk(".", dir_fd=top, follow_symlinks=False):
            for name in (*directories, *names, "."):
                with suppress(FileNotFoundError):
                    if os.stat(name, dir_fd=fd, follow_symlinks=False).st_ctime_ns >= began_ns:
                        return os.path.normpath(f"{path}/{place}/{name}")
    return ""


def _check_mounts(tree: HostTree, found: Iterable[Found]) -> None:
    """Check that each change is in the mount in which the command made it, and removes nothing that is mounted.

    Raises:
        MiniboxError: something is mounted that the command did not see, for example since then.
    """
    points = [below(tree.over, point) for point in mount_points() if is_below(point, tree.over)]
    for each in found:
        part, removes = tree.parts[each.part].path, each.before and not stat.S_ISDIR(each.mode)
        for point in points:
            covers = is_below(point, part) and is_below(f"{each.path}/.", point)
            if covers or (removes and is_below(point, each.path)):
                raise MiniboxError(
                    f"apply {tree.host_path(each.path)}: the command did not see what is mounted on {tree.host_path(point)}",
                    f"nothing was applied: umount {tree.host_path(point)} first, or discard the changes",
                )


class Apply:
    """Writes changes to the host."""

    def __init__(self, overlays: Overlays, *, privileged: bool) -> None:
        """
        Args:
            privileged: also apply set-user-ID bits, file capabilities and devices.
        """
        self._overlays, self._privileged = overlays, privileged
        self._left_out: list[tuple[str, str]] = []
        self._links: dict[tuple[int, int], bytes] = {}

    def all(self, found: list[Found]) -> Applied:
        """Apply all changes, which are sorted by path. If it fails, a part of them is applied.

        Raises:
            MiniboxError: the kernel refused; with the path. Or something is mounted that the command did not see.
        """
        over = self._overlays
        _check_mounts(over.tree, found)
        base = Base(os.dup(over.over_fd), over.tree.over)
        with Placer(base, None, privileged=True) as placer:
            try:
                for each in found:
                    try:
                        self._one(each, placer)
                    except (OSError, UsageError) as error:
                        why = kernel_says(error) if isinstance(error, OSError) else str(error)
                        raise MiniboxError(
                            f"apply {over.tree.host_path(each.path)}: {why}",
                            "the changes before it, in the order shown, are applied: try again",
                        ) from error
            finally:  # also of those that were made before an error
                _finish(placer)
        return Applied(len(found), tuple(self._left_out))

    def _one(self, found: Found, placer: Placer) -> None:
        parent, _, name = os.fsencode(found.path[1:]).rpartition(b"/")
        if found.kind == "D":
            self._remove(parent, name)
            return
        if stat.S_ISSOCK(found.mode):
            self._left_out.append((found.path, "a socket, useless without its process"))
            return
        if found.privilege and not self._privileged:
            if not stat.S_ISREG(found.mode):
                self._left_out.append((found.path, found.privilege))
                return
            self._left_out.append((found.path, f"applied without: {found.privilege}"))
        if found.before and stat.S_IFMT(found.before[2]) != stat.S_IFMT(found.mode):
            self._remove(parent, name)
        with self._overlays.opened(found) as node:
            entry = self._entry(node, found)
            if not name:
                self._root(entry)
                return
            fd = node.open(os.O_RDONLY) if entry.kind == tar.REGULAR else -1
            try:
                if fd >= 0:
                    entry.sparse = list(_pieces(fd, entry.size))
                placer.place(entry, _content(fd, entry.sparse or ()))
            finally:
                close_descriptors(fd)

    def _remove(self, parent: bytes, name: bytes) -> None:
        with suppress(FileNotFoundError):
            with closing(open_beneath(self._overlays.over_fd, parent or b".", READ_DIRECTORY)) as fd:
                remove_at(name, fd)

    def _root(self, entry: tar.Entry) -> None:
        """Set the mode and owner of the root directory of the trial, which has no name in it."""
        fd = self._overlays.over_fd
        with closing(os.open(".", READ_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)) as root:
            if not os.geteuid():
                os.fchown(root, entry.uid, entry.gid)
            os.fchmod(root, entry.mode)

    def _entry(self, node: Node, found: Found) -> tar.Entry:
        status = node.status
        entry = tar.Entry(os.fsencode(found.path[1:]), KINDS[stat.S_IFMT(status.st_mode)])
        entry.uid, entry.gid = node.owner
        entry.mode, entry.mtime_ns = stat.S_IMODE(found.mode), status.st_mtime_ns
        if entry.kind in (tar.REGULAR, tar.DIRECTORY):
            entry.xattrs = {os.fsencode(name): value for name, value in node.xattrs().items()}
        if entry.kind == tar.REGULAR:
            entry.size = status.st_size
            if not self._privileged:
                entry.mode &= ~SET_IDS
                entry.xattrs.pop(os.fsencode(CAPABILITY), None)
        if entry.kind == tar.SYMLINK:
            entry.link = node.readlink()
        entry.device = os.major(status.st_rdev), os.minor(status.st_rdev)
        if status.st_nlink > 1 and entry.kind != tar.DIRECTORY:
            first = self._links.setdefault(node.identity, entry.name)
            if first != entry.name:
                entry.kind, entry.link, entry.size = tar.HARD_LINK, first, 0
        return entry


def _finish(placer: Placer) -> None:
    try:
        placer.finish()
    except OSError as error:
        raise MiniboxError(f"apply the attributes of directories: {kernel_says(error)}") from error


def _pieces(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length of what is not a hole; lseek(2)."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == ENXIO:  # nothing but a hole
                return
            raise
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, at - start


def _content(fd: int, pieces: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
    for offset, length in pieces:
        while length:
            chunk = os.pread(fd, min(length, CHUNK_BYTES), offset)
            if not chunk:
                chunk = bytes(min(length, CHUNK_BYTES))  # cut off meanwhile
            yield memoryview(chunk)
            offset, length = offset + len(chunk), length - len(chunk)
