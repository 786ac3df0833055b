"""Clone a directory tree with everything that stat(2) and xattr(7) show.

It keeps owners, modes, times, xattrs, hard links and holes, at any depth. It reads the source through
`minibox.image.layer.stack`, which opens each file once, so that a container that changes it meanwhile can't mislead us.
"""

from __future__ import annotations

import errno
import fcntl
import os
from stat import S_IMODE, S_ISLNK, S_ISREG

from minibox.base.files import closing
from minibox.image.layer.stack import READ_DIRECTORY, Child, Stack, is_gone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.image.layer.owners import Owners
    from minibox.image.layer.stack import Node

    Attributes = tuple[os.stat_result, tuple[int, int], dict[str, bytes]]

FICLONE = 0x40049409
# FICLONE's errors if the file system can't clone, or not this pair of files; ioctl_ficlone(2).
NO_REFLINK = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS)
CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY, FILE = Child((0,), True), Child((0,), False)
OVERLAY_MARKS = ("trusted.overlay.", "user.overlay.")


def clone(source: str, target: str, *, share: bool = False, owners: Owners | None = None) -> None:
    """Make the tree ``target`` a clone of ``source``, with overlayfs's marks.

    Args:
        share: link files instead of copying them, for trees that nobody writes to.
        owners: the owners of the source's files, if they differ from those on disk.

    Raises:
        OSError: the disk is full, or a file belongs to an id that isn't mapped; with the path.
    """
    make_directory(target)
    with Stack([os.open(source, READ_DIRECTORY | os.O_CLOEXEC)], "", owners=owners) as stack:
        fill(stack.root, target, share=share)


def fill(
    source: Node, target: str, *, share: bool = False, without: tuple[str, ...] = (), durable: bool = False
) -> None:
    """Make the empty directory ``target`` a clone of ``source``.

    Args:
        share: see `clone`.
        without: prefixes of the names of xattrs to leave out.
        durable: sync all files and directories to disk before returning.

    Raises:
        OSError: like `clone`.
    """
    with Stack([os.open(target, READ_DIRECTORY | os.O_CLOEXEC)], "") as stack:
        _Filling(stack, share, without, durable).fill(source)


def make_directory(path: str) -> None:
    """Make a directory that we can fill, whatever its mode will be later."""
    os.mkdir(path, 0o700)


class _Filling:
    def __init__(self, target: Stack, share: bool, without: tuple[str, ...], durable: bool) -> None:
        self._target, self._share, self._without, self._durable = target, share, without, durable
        self._reflinks = True
        self._links: dict[tuple[int, int], tuple[str, str]] = {}  # the first name of each inode with several

    def fill(self, source: Node) -> None:
        made = [("", self._attributes(source))]
        levels = [(source, self._target.root, _children(source))]
        while levels:
            above, there, children = levels[-1]
            try:
                name, child = next(children)
            except StopIteration:
                levels.pop()
                if levels:
                    above.close()
                    there.close()
                continue
            try:
                node = above.child(name, child)
            except OSError as error:
                if not is_gone(error):
                    raise
                continue
            if node.is_directory:
                os.mkdir(name, 0o700, dir_fd=there.fd)
                below = there.child(name, DIRECTORY)
                made.append((below.path, self._attributes(node)))
                levels.append((node, below, _children(node)))
                continue
            with node:
                try:
                    if not self._link(node, there, name):
                        self._copy(node, there, name)
                except OSError as error:
                    raise OSError(error.errno, os.strerror(error.errno or 0), node.path) from error
        self._finish(made)

    def _finish(self, made: list[tuple[str, Attributes]]) -> None:
        """Set the attributes of directories, now that they are full: filling changes times; a mode may keep us out."""
        for path, attributes in reversed(made):
            with closing(self._target.open_beneath(0, path, READ_DIRECTORY)) as fd:
                self._give(f"/proc/self/fd/{fd}", attributes)
                if self._durable:
                    os.fsync(fd)

    def _link(self, node: Node, there: Node, name: str) -> bool:
        """Make ``name`` a hard link if the source shares an inode, or if we share files; tell whether we did."""
        if self._share:
            try:
                os.link(node.proc_path, name, dst_dir_fd=there.fd)
                return True
            except OSError as error:
                # EMLINK: too many links for the file system. EPERM: another user's file (fs.protected_hardlinks).
                if error.errno not in (errno.EMLINK, errno.EPERM):
                    raise
        if node.status.st_nlink == 1:
            return False
        first = self._links.setdefault(node.identity, (there.path, name))
        if first == (there.path, name):
            return False
        with closing(self._target.open_beneath(0, first[0], READ_DIRECTORY)) as fd:
            os.link(first[1], name, src_dir_fd=fd, dst_dir_fd=there.fd, follow_symlinks=False)
        return True

    def _copy(self, node: Node, there: Node, name: str) -> None:
        status, attributes = node.status, self._attributes(node)
        if S_ISREG(status.st_mode):
            self._copy_file(node, there, name, attributes)
            return
        if S_ISLNK(status.st_mode):
            os.symlink(node.readlink(), os.fsencode(name), dir_fd=there.fd)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=there.fd)
        with there.child(name, FILE) as made:
            self._give(made.proc_path, attributes)

    def _copy_file(self, node: Node, there: Node, name: str, attributes: Attributes) -> None:
        with closing(node.open(os.O_RDONLY)) as reader:
            with closing(os.open(name, CREATE_FILE, 0o600, dir_fd=there.fd)) as writer:
                size = node.status.st_size
                if size and not self._reflink(reader, writer):
                    for begin, end in _data(reader, size):
                        _copy_range(reader, writer, begin, end)
                    os.ftruncate(writer, size)  # a hole at the end
                self._give(f"/proc/self/fd/{writer}", attributes)
                if self._durable:
                    os.fsync(writer)

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

    def _attributes(self, node: Node) -> Attributes:
        xattrs = node.all_xattrs()
        return node.status, node.owner, {key: xattrs[key] for key in xattrs if not key.startswith(self._without)}

    @staticmethod
    def _give(path: str, attributes: Attributes) -> None:
        """Set owner, mode, xattrs and times, in this order: changing the owner clears set-uid bits.

        Args:
            path: in /proc/self/fd, so that for a symlink it means the symlink itself.
        """
        status, owner, xattrs = attributes
        os.chown(path, *owner)
        if not S_ISLNK(status.st_mode):
            os.chmod(path, S_IMODE(status.st_mode))
        for key, value in xattrs.items():
            os.setxattr(path, key, value)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _children(directory: Node) -> Iterator[tuple[str, Child]]:
    try:
        return iter(directory.children().items())
    except OSError as error:
        if not is_gone(error):
            raise
        return iter(())


def can_reflink(directory: str) -> bool:
    """Try whether files in ``directory`` can share blocks."""
    source = f"{directory}/reflink-{os.getpid()}-{os.urandom(4).hex()}"  # several threads may try
    target = f"{source}-clone"
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
    """Yield the begin and end of each part of a file that isn't a hole; lseek(2)."""
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
    alike = os.fstat(reader).st_dev == os.fstat(writer).st_dev  # otherwise copy_file_range(2) fails with EXDEV
    os.lseek(writer, begin, os.SEEK_SET)
    while begin < end:
        if alike:
            copied = os.copy_file_range(reader, writer, end - begin, begin)
        else:
            copied = os.sendfile(writer, reader, begin, end - begin)
        if not copied:
            return  # the file became shorter
        begin += copied
