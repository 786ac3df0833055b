"""Measure the disk space of a directory tree, and how much of it the tree doesn't share."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from stat import S_ISDIR, S_ISLNK, S_ISREG
from struct import pack_into, unpack_from

from minibox.base.files import closing
from minibox.errors import suppress
from minibox.image.layer.stack import LIST_OPEN, LOOK, Child, Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.image.layer.stack import Node

    Entries = Iterator[tuple[str, os.stat_result]]

DIRECTORY, FILE = Child((0,), True), Child((0,), False)
BLOCK_BYTES = 512  # the unit of st_blocks, on every file system
FS_IOC_FIEMAP = 0xC020660B
HEAD_BYTES, EXTENT_BYTES, EXTENTS = 32, 56, 128
LAST, INLINE, SHARED = 0x1, 0x200, 0x2000  # FIEMAP_EXTENT_*
WHOLE_FILE = (1 << 64) - 1


def tree_bytes(path: str) -> int:
    """Return the bytes of all blocks of ``path`` and below, each inode once, like du(1); 0 if it doesn't exist.

    Directories that the caller may not read count as empty.
    """
    with _tree(path) as tree:
        return sum(status.st_blocks * BLOCK_BYTES for _, _, status, _ in _inodes(tree))


def file_bytes(path: str) -> int:
    """Like `tree_bytes`, but ``path`` may also be a file."""
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    return tree_bytes(path) if S_ISDIR(status.st_mode) else status.st_blocks * BLOCK_BYTES


def own_bytes(path: str) -> int:
    """Like `tree_bytes`, without what other trees share: files that are linked elsewhere, and shared blocks.

    Shared blocks are found with FIEMAP, if the file system has it: a clone (btrfs, xfs) owns only what was written
    since. Metadata of btrfs isn't counted. Neither are symlinks, for which btrfs reports a block each.
    """
    total = 0
    with _tree(path) as tree:
        for directory, name, status, links in _inodes(tree):
            if S_ISREG(status.st_mode):
                total += _own_blocks(directory, name, status) if links == status.st_nlink else 0
            elif not S_ISLNK(status.st_mode):
                total += status.st_blocks * BLOCK_BYTES
    return total


def added_bytes(path: str, parent: str) -> int:
    """Return the disk space that a changed clone adds to the tree ``parent``; all of it if ``parent`` is "".

    An inode is shared if it has the same name, number and time of change in both.
    """
    total = 0
    with _tree(path) as tree, _tree(parent) as before:
        for directory, name, status, _ in _inodes(tree):
            if not S_ISLNK(status.st_mode) and not _is_same(
                status, before, "/".join(filter(None, (directory.path, name)))
            ):
                total += status.st_blocks * BLOCK_BYTES
    return total


def _is_same(status: os.stat_result, tree: Stack, path: str) -> bool:
    if not tree.root.layers:
        return False
    try:
        fd = tree.open_beneath(0, path, LOOK)
    except OSError:
        return False
    with closing(fd):
        other = os.fstat(fd)
        return (other.st_ino, other.st_ctime_ns) == (status.st_ino, status.st_ctime_ns)


@contextmanager
def _tree(path: str) -> Iterator[Stack]:
    """Open the directory ``path`` for reading; an empty stack if it doesn't exist or belongs to another user."""
    fds: list[int] = []
    with suppress(OSError):
        fds.append(os.open(path, LOOK | os.O_DIRECTORY | os.O_CLOEXEC))
    with Stack(fds, "") as tree:
        yield tree


def _inodes(tree: Stack) -> Iterator[tuple[Node, str, os.stat_result, int]]:
    """Yield each inode of a tree once: its directory, its name there, its status, and its number of names in the tree.

    A directory itself comes with the name "".
    """
    if not tree.root.layers:
        return
    linked: dict[tuple[int, int], tuple[Node, str, os.stat_result, int]] = {}
    yield tree.root, "", tree.root.status, 1
    levels = [(tree.root, _entries(tree.root))]
    while levels:
        directory, entries = levels[-1]
        try:
            name, status = next(entries)
        except StopIteration:
            levels.pop()
            if levels:
                directory.close()
            continue
        if S_ISDIR(status.st_mode):
            try:
                below = directory.child(name, DIRECTORY)
            except OSError:
                continue  # it was removed meanwhile
            yield below, "", below.status, 1
            levels.append((below, _entries(below)))
        elif status.st_nlink == 1:
            yield directory, name, status, 1
        else:
            inode = (status.st_dev, status.st_ino)
            _, _, _, links = linked.get(inode, (None, "", None, 0))
            linked[inode] = directory, name, status, links + 1
    yield from linked.values()


def _entries(directory: Node) -> Entries:
    """Return name and status of all entries of a directory; none if it is another user's or was removed meanwhile."""
    try:
        fd = _open_to_list(directory)
    except OSError:
        return iter(())
    found = []
    with closing(fd), suppress(OSError):
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue
    return iter(found)


def _open_to_list(directory: Node) -> int:
    """Open a directory without changing its access time, if we may: in a clone that would cost the first own block."""
    try:
        return directory.open(LIST_OPEN | os.O_NOATIME)
    except PermissionError:
        return directory.open(LIST_OPEN)


def _own_blocks(directory: Node, name: str, status: os.stat_result) -> int:
    if not status.st_blocks:
        return 0
    try:
        with directory.child(name, FILE) as file:
            if not S_ISREG(file.status.st_mode):
                return 0  # another file has the name by now
            fd = file.open(os.O_RDONLY)
    except OSError:
        return status.st_blocks * BLOCK_BYTES
    try:
        return sum(length for length, flags in _extents(fd) if not flags & (SHARED | INLINE))
    except OSError:
        return status.st_blocks * BLOCK_BYTES  # a file system without FIEMAP shares nothing
    finally:
        os.close(fd)


def _extents(fd: int) -> Iterator[tuple[int, int]]:
    """Yield length and flags of each extent of a file; https://docs.kernel.org/filesystems/fiemap.html."""
    begin = 0
    while True:
        buffer = bytearray(HEAD_BYTES + EXTENTS * EXTENT_BYTES)
        pack_into("=QQIIII", buffer, 0, begin, WHOLE_FILE, 0, 0, EXTENTS, 0)
        fcntl.ioctl(fd, FS_IOC_FIEMAP, buffer)
        (mapped,) = unpack_from("=I", buffer, 20)
        flags = LAST
        for number in range(mapped):
            logical, _, length, _, _, flags = unpack_from("=QQQQQI", buffer, HEAD_BYTES + number * EXTENT_BYTES)
            yield length, flags
            begin = logical + length
        if flags & LAST:
            return
