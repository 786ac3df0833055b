"""What a directory tree takes of the disk, and what of that is its own."""

from __future__ import annotations

import fcntl
import os
from stat import S_ISDIR, S_ISLNK, S_ISREG
from struct import pack_into, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES = 512  # of st_blocks, on every file system
FS_IOC_FIEMAP = 0xC020660B
HEAD_BYTES, EXTENT_BYTES, EXTENTS = 32, 56, 128
LAST, INLINE, SHARED = 0x1, 0x200, 0x2000  # FIEMAP_EXTENT_*
WHOLE_FILE = (1 << 64) - 1


def tree_bytes(path: str) -> int:
    """Bytes of all blocks below and of ``path``, each inode once, as du(1); 0 when it isn't there.

    What the caller may not read counts for nothing.
    """
    return sum(status.st_blocks * BLOCK_BYTES for _, status, _ in _inodes(path))


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
    for name, status, links in _inodes(path):
        if S_ISREG(status.st_mode):
            total += _own_blocks(name, status) if links == status.st_nlink else 0
        elif not S_ISLNK(status.st_mode):
            total += status.st_blocks * BLOCK_BYTES
    return total


def added_bytes(path: str, parent: str) -> int:
    """What a clone of the tree ``parent``, changed since, takes of the disk beyond that; all of it when that is "".

    An inode that has its number and time of change in both, under the same name, is shared.
    """
    total = 0
    for name, status, _ in _inodes(path):
        if not S_ISLNK(status.st_mode) and not (parent and _is_same(status, parent + name[len(path) :])):
            total += status.st_blocks * BLOCK_BYTES
    return total


def _is_same(status: os.stat_result, path: str) -> bool:
    try:
        other = os.lstat(path)
    except OSError:
        return False
    return (other.st_ino, other.st_ctime_ns) == (status.st_ino, status.st_ctime_ns)


def _inodes(path: str) -> Iterator[tuple[str, os.stat_result, int]]:
    """Each inode of a tree once: a path, its status, how many names it has in the tree."""
    linked: dict[tuple[int, int], tuple[str, os.stat_result, int]] = {}
    waiting = [path]
    while waiting:
        directory = waiting.pop()
        try:
            fd = _open_directory(directory)
        except OSError:
            continue  # it went meanwhile, or is another user's
        try:
            yield directory, os.fstat(fd), 1
            with os.scandir(fd) as entries:
                for entry in entries:
                    status, name = entry.stat(follow_symlinks=False), f"{directory}/{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(name)
                    elif status.st_nlink == 1:
                        yield name, status, 1
                    else:
                        inode = (status.st_dev, status.st_ino)
                        _, _, links = linked.get(inode, ("", None, 0))
                        linked[inode] = name, status, links + 1
        except OSError:
            continue
        finally:
            os.close(fd)
    yield from linked.values()


def _open_directory(path: str) -> int:
    """Open to list; without a trace, where one may: of a clone, a new access time would be the first own block."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)


def _own_blocks(path: str, status: os.stat_result) -> int:
    if not status.st_blocks:
        return 0
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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
