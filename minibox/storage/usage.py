"""What a directory tree takes of the disk, and what of that is its own."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from stat import S_ISDIR, S_ISLNK, S_ISREG
from struct import pack_into, unpack_from

from minibox.image.stack import LIST_OPEN, LOOK, Child, Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.image.stack import Node

    Entries = Iterator[tuple[str, os.stat_result]]

DIRECTORY, FILE = Child((0,), True), Child((0,), False)
BLOCK_BYTES = 512  # of st_blocks, on every file system
FS_IOC_FIEMAP = 0xC020660B
HEAD_BYTES, EXTENT_BYTES, EXTENTS = 32, 56, 128
LAST, INLINE, SHARED = 0x1, 0x200, 0x2000  # FIEMAP_EXTENT_*
WHOLE_FILE = (1 << 64) - 1


def tree_bytes(path: str) -> int:
    """Bytes of all blocks below and of ``path``, each inode once, as du(1); 0 when it isn't there.

    What the caller may not read counts for nothing.
    """
    with _tree(path) as tree:
        return sum(status.st_blocks * BLOCK_BYTES for _, _, status, _ in _inodes(tree))


def file_bytes(path: str) -> int:
    """The same of what is at ``path``, a directory or not."""
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    return tree_bytes(path) if S_ISDIR(status.st_mode) else status.st_blocks * BLOCK_BYTES


def own_bytes(path: str) -> int:
    """The same without what other trees have too: files that are linked elsewhere, and blocks that files share.

    Blocks are looked up by FIEMAP, where the file system has it: of a clone (btrfs, xfs) only what was
    written since is its own. Metadata of btrfs isn't counted, nor are symlinks, which btrfs says take a block each.
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
    """What a clone of the tree ``parent``, changed since, takes of the disk beyond that; all of it when that is "".

    An inode that has its number and time of change in both, under the same name, is shared.
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
    try:
        other = os.fstat(fd)
        return (other.st_ino, other.st_ctime_ns) == (status.st_ino, status.st_ctime_ns)
    finally:
        os.close(fd)


@contextmanager
def _tree(path: str) -> Iterator[Stack]:
    """The directory ``path``, to be read; an empty stack when it isn't there, or is another user's."""
    fds: list[int] = []
    try:
        fds.append(os.open(path, LOOK | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError:
        pass
    with Stack(fds, "") as tree:
        yield tree


def _inodes(tree: Stack) -> Iterator[tuple[Node, str, os.stat_result, int]]:
    """Each inode of a tree once: its directory and its name there, its status, how many names it has in the tree.

    A directory itself comes with "" for a name.
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
                continue  # it went meanwhile
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
    """Name and status of all that is in a directory; of none when it is another user's, or went meanwhile."""
    try:
        fd = _open_to_list(directory)
    except OSError:
        return iter(())
    found = []
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue
    except OSError:
        pass
    finally:
        os.close(fd)
    return iter(found)


def _open_to_list(directory: Node) -> int:
    """Without a trace, where one may: of a clone, a new access time would be the first own block."""
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
                return 0  # another one is there by now
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
    """Length and flags of each extent of a file; https://docs.kernel.org/filesystems/fiemap.html."""
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
