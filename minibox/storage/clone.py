"""Cloning a directory tree that nobody changes meanwhile, with all that stat(2) and xattr(7) tell.

Owners, modes, times, xattrs, hard links and holes are kept.
"""

from __future__ import annotations

import errno
import fcntl
import os
from stat import S_IMODE, S_ISDIR, S_ISLNK, S_ISREG

from minibox.image.owners import Owners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FICLONE = 0x40049409
# What FICLONE answers where the file system can't, or not for this pair of files; ioctl_ficlone(2).
NO_REFLINK = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS)
OPEN_SOURCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Cloning:
    """One cloning.

    ``share``: files are linked, not copied, for trees that nobody writes to. ``owners``: whose the source's files are,
    where that isn't as it seems.
    """

    def __init__(self, *, share: bool, owners: Owners | None = None) -> None:
        self._share, self._owners = share, owners or Owners()
        self._reflinks = True
        self._links: dict[int, str] = {}  # inodes with several names, and where the first is

    def clone(self, source: str, target: str) -> None:
        """Make the tree ``target`` as ``source`` is.

        Raises:
            OSError: the disk is full, a path is too long, or a file belongs to an id that isn't mapped.
        """
        status = os.lstat(source)
        self.make_directory(target)
        made = [(source, target, status)]
        waiting = [(source, target)]
        while waiting:
            directory, there = waiting.pop()
            with os.scandir(directory) as entries:
                for entry in entries:
                    status, path = entry.stat(follow_symlinks=False), f"{there}/{entry.name}"
                    if S_ISDIR(status.st_mode):
                        self.make_directory(path)
                        made.append((entry.path, path, status))
                        waiting.append((entry.path, path))
                    elif not self._link(entry.path, path, status):
                        self._copy(entry.path, path, status)
                        self._copy_status(entry.path, path, status)
        for directory, there, status in reversed(made):  # the times of a directory change while it is filled
            self._copy_status(directory, there, status)

    @staticmethod
    def make_directory(path: str) -> None:
        """Make a directory that can be filled, whatever its mode will be."""
        os.mkdir(path, 0o700)

    def _link(self, source: str, target: str, status: os.stat_result) -> bool:
        """Make ``target`` another name of what is there already, if so it is."""
        if self._share:
            try:
                os.link(source, target, follow_symlinks=False)
                return True
            except OSError as error:
                # More links than the file system has room for; of another user's file (fs.protected_hardlinks).
                if error.errno not in (errno.EMLINK, errno.EPERM):
                    raise
        if status.st_nlink == 1:
            return False
        first = self._links.setdefault(status.st_ino, target)
        if first != target:
            os.link(first, target, follow_symlinks=False)
        return first != target

    def _copy(self, source: str, target: str, status: os.stat_result) -> None:
        if S_ISLNK(status.st_mode):
            os.symlink(os.readlink(source), target)
        elif S_ISREG(status.st_mode):
            self._copy_file(source, target, status.st_size)
        else:
            os.mknod(target, status.st_mode, status.st_rdev)

    def _copy_file(self, source: str, target: str, size: int) -> None:
        reader = os.open(source, OPEN_SOURCE)
        try:
            writer = os.open(target, CREATE_FILE, 0o600)
            try:
                if size and not self._reflink(reader, writer):
                    for begin, end in _data(reader, size):
                        _copy_range(reader, writer, begin, end)
                    os.ftruncate(writer, size)  # a hole at the end
            finally:
                os.close(writer)
        finally:
            os.close(reader)

    def _reflink(self, reader: int, writer: int) -> bool:
        if not self._reflinks:
            return False
        try:
            fcntl.ioctl(writer, FICLONE, reader)
        except OSError as error:
            if error.errno not in NO_REFLINK:
                raise
            self._reflinks = False
        return self._reflinks

    def _copy_status(self, source: str, target: str, status: os.stat_result) -> None:
        """Owner, then mode, since a change of owner takes set-uid away, then attributes and times."""
        os.chown(target, *self._owners.of(status), follow_symlinks=False)
        if not S_ISLNK(status.st_mode):
            os.chmod(target, S_IMODE(status.st_mode))
        for name in os.listxattr(source, follow_symlinks=False):
            value = self._owners.xattr(name, os.getxattr(source, name, follow_symlinks=False))
            os.setxattr(target, name, value, follow_symlinks=False)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def can_reflink(directory: str) -> bool:
    """Whether files in ``directory`` can share blocks: tried."""
    source, target = f"{directory}/reflink-{os.getpid()}", f"{directory}/reflink-{os.getpid()}-clone"
    try:
        with open(source, "xb") as file:
            file.write(b"x")
        with open(source, "rb") as reader, open(target, "xb") as writer:
            fcntl.ioctl(writer, FICLONE, reader.fileno())
    except OSError:
        return False
    finally:
        for path in (source, target):
            if os.path.exists(path):
                os.unlink(path)
    return True


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each part of a file that is no hole; lseek(2)."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin, end


def _copy_range(reader: int, writer: int, begin: int, end: int) -> None:
    alike = os.fstat(reader).st_dev == os.fstat(writer).st_dev  # else copy_file_range(2) answers EXDEV
    os.lseek(writer, begin, os.SEEK_SET)
    while begin < end:
        if alike:
            copied = os.copy_file_range(reader, writer, end - begin, begin)
        else:
            copied = os.sendfile(writer, reader, begin, end - begin)
        if not copied:
            return  # it was shortened
        begin += copied
