"""Write a tar's entries into a root file system that others may be using: `minibox cp`.

Unlike a layer, the tar has no whiteouts, and it can't replace a directory by a file. We don't trust the archive: each
directory is opened with openat2(2) below the target directory, and never through a symlink that this copy made. In a
container we follow symlinks that existed before, below its root, like `docker cp`; on the host we follow none.
Everything else works on a single name in an open directory, or on a file opened that way.
"""

from __future__ import annotations

import os
import stat
from errno import EBUSY, ELOOP, ENOTDIR

from minibox.base.files import AutoClose, closing
from minibox.errors import UsageError, on_failure, suppress
from minibox.image.layer import tar
from minibox.image.layer.attributes import LayerAttributes
from minibox.image.layer.entry_names import split_name
from minibox.linux.files import open_beneath
from minibox.linux.small_files import write_small_files
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


Identity = tuple[int, int]

NODES = {tar.FIFO: stat.S_IFIFO, tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK}
DEVICES = (tar.CHARACTER, tar.BLOCK_DEVICE)
SET_IDS, FOR_OTHERS = stat.S_ISUID | stat.S_ISGID, 0o077
LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
SYMLINKS_MAX = 40  # path_resolution(7)


@record
class Base:
    """The directory to copy to.

    Attributes:
        fd: the open directory; the `Placer` closes it.
        path: its path below the root.
        root_fd: the root of a container; -1 on the host.
    """

    fd: int
    path: str
    root_fd: int = -1


class Placer(AutoClose):
    """Writes entries below ``base``; use it in a ``with`` statement.

    Args:
        owner: the owner of all new files; None for the owners in the archive. An ordinary user can't choose: then all
            files are that user's.
        privileged: keep set-user-ID bits, file capabilities, and devices that others may open.
    """

    def __init__(self, base: Base, owner: tuple[int, int] | None, *, privileged: bool) -> None:
        self._base = base
        self._owner = owner
        self._privileged = privileged
        self._attributes = LayerAttributes("auto", replace=True)
        self._parent = b""
        self._parent_fd = -1
        self._directories: dict[bytes, tuple[tar.Entry, Identity]] = {}
        self._symlinks: set[Identity] = set()  # symlinks that this copy made

    def close(self) -> None:
        """Close the directories."""
        self._forget_parent()
        os.close(self._base.fd)

    def place(self, entry: tar.Entry, content: Iterable[memoryview]) -> None:
        """Write one entry. ``content`` is for a regular file; for a sparse one, without the holes.

        Raises:
            UsageError: the target is a directory and the entry isn't, or the other way round, or a symlink is on the
                way.
            StoreError: the entry's name leads out of the archive.
            OSError: the kernel refused; with the path.
        """
        components = split_name(entry.name)
        if not components:
            return  # the target directory itself, which exists
        self._restrict(entry)
        path = b"/".join(components)
        try:
            self._open_parent(b"/".join(components[:-1]))
            self._create(components[-1], path, entry, content)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), self._named(path)) from error

    def place_small(self, files: Sequence[tuple[tar.Entry, bytes]]) -> int:
        """Write regular files without extended attributes, all in one directory, and return how many were written.

        Place the others one by one: one exists, or can't be made, for which `place` has the error.
        """
        if not files:
            return 0
        for entry, _ in files:
            self._restrict(entry)
        parent, _, _ = b"/".join(split_name(files[0][0].name)).rpartition(b"/")
        try:
            self._open_parent(parent)
        except (OSError, UsageError):
            return 0
        names = [entry.name.rpartition(b"/")[2] for entry, _ in files]
        attributes = [self._attributes.plain(entry) for entry, _ in files]
        return write_small_files(self._parent_fd, names, attributes, [content for _, content in files])

    def finish(self) -> None:
        """Set the attributes of directories, the deepest first. Filling them would have changed these."""
        for path in sorted(self._directories, key=lambda path: path.count(b"/"), reverse=True):
            entry, identity = self._directories[path]
            with closing(self._open(path)) as fd:
                if _identity(fd) == identity:  # otherwise somebody replaced it
                    self._attributes.apply(fd, entry)

    def _restrict(self, entry: tar.Entry) -> None:
        """Change an entry to what this copy may write."""
        if self._owner is not None:
            entry.uid, entry.gid = self._owner
        if not self._privileged:
            entry.mode &= ~SET_IDS & (~FOR_OTHERS if entry.kind in DEVICES else ~0)
            entry.xattrs = {name: value for name, value in entry.xattrs.items() if not name.startswith(b"security.")}

    def _create(self, name: bytes, path: bytes, entry: tar.Entry, content: Iterable[memoryview]) -> None:
        directory = self._parent_fd
        if entry.kind == tar.REGULAR and (new := self._open_new(name)) >= 0:
            with on_failure(_unlink, name, directory):  # rather no file than half of it
                self._write_content(new, entry, content)
            return
        try:
            present = os.lstat(name, dir_fd=directory)
        except FileNotFoundError:
            present = None
        is_directory = present is not None and stat.S_ISDIR(present.st_mode)
        if entry.kind == tar.DIRECTORY:
            if present is not None and not is_directory:
                raise UsageError(f"cannot overwrite non-directory {self._shown(path)} with a directory")
            self._make_directory(name, path, entry)
            return
        if is_directory:
            raise UsageError(f"cannot overwrite directory {self._shown(path)} with a non-directory")
        if present is not None and (mounted := self._open_mounted(name, entry.kind)) >= 0:
            self._write_content(mounted, entry, content)
            return
        if entry.kind == tar.REGULAR:
            self._replace(name, entry, content)
            return
        if present is not None:
            os.unlink(name, dir_fd=directory)
        if entry.kind == tar.HARD_LINK:
            self._link(name, entry)
        elif entry.kind == tar.SYMLINK:
            os.symlink(entry.link, name, dir_fd=directory)
            made = os.lstat(name, dir_fd=directory)
            self._symlinks.add((made.st_dev, made.st_ino))
            self._attributes.apply_at(name, directory, entry)
        else:
            os.mknod(name, NODES[entry.kind] | 0o600, os.makedev(*entry.device), dir_fd=directory)
            self._attributes.apply_at(name, directory, entry)

    def _open_new(self, name: bytes) -> int:
        """Make a file and open it; -1 if the name is taken. Most aren't, so this is tried before anything is looked at."""
        try:
            return os.open(name, NEW, 0o600, dir_fd=self._parent_fd)
        except FileExistsError:
            return -1

    def _replace(self, name: bytes, entry: tar.Entry, content: Iterable[memoryview]) -> None:
        """Write a file under another name and rename it, so that a reader sees all of the old content or of the new."""
        temporary = b".%s.%d.%s" % (name[:200], os.getpid(), os.urandom(4).hex().encode())
        directory = self._parent_fd
        new = os.open(temporary, NEW, 0o600, dir_fd=directory)
        try:
            self._write_content(new, entry, content)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            _unlink(temporary, directory)
            raise

    def _make_directory(self, name: bytes, path: bytes, entry: tar.Entry) -> None:
        """Make a directory or use the existing one, and open it as `_parent_fd`: the next entries are usually in it."""
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self._parent_fd)
        fd = os.open(name, READ_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._parent_fd)
        self._forget_parent()
        self._parent, self._parent_fd = path, fd
        self._directories[path] = entry, _identity(fd)

    def _link(self, name: bytes, entry: tar.Entry) -> None:
        parent, _, target_name = b"/".join(split_name(entry.link)).rpartition(b"/")
        with closing(self._open(parent)) as target_fd:
            os.link(target_name, name, src_dir_fd=target_fd, dst_dir_fd=self._parent_fd, follow_symlinks=False)

    def _write_content(self, fd: int, entry: tar.Entry, content: Iterable[memoryview]) -> None:
        with open(fd, "wb", 1 << 20) as file:
            if entry.sparse is None:
                for piece in content:
                    file.write(piece)
            else:
                data = _Pieces(content)
                for offset, length in entry.sparse:
                    file.seek(offset)
                    for piece in data.take(length):
                        file.write(piece)
                file.truncate(entry.size)
            file.flush()
            self._attributes.apply(file.fileno(), entry)

    def _open_mounted(self, name: bytes, kind: bytes) -> int:
        """Open a file that is mounted on this name, as on /etc/hosts, for writing; -1 if nothing is mounted there.

        We write into it: unlink(2) would unmount it, since it is mounted only in another mount namespace. We look up
        the name only once, since it may become another file at any time.
        """
        with closing(os.open(name, LOOK, dir_fd=self._parent_fd)) as fd:
            if _mount_id(fd) == _mount_id(self._parent_fd):
                return -1
            if kind != tar.REGULAR or not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(EBUSY, "")
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)

    # ---- directories -------------------------------------------------------------------------------

    def _open_parent(self, path: bytes) -> None:
        """Open a directory as `_parent_fd`. Make missing ones, for which the archive has no entry."""
        if self._parent_fd >= 0 and path == self._parent:
            return
        self._forget_parent()
        missing: list[bytes] = []
        while self._parent_fd < 0:
            try:
                self._parent, self._parent_fd = path, self._open(path)
            except FileNotFoundError:
                if not path:
                    raise
                path, _, name = path.rpartition(b"/")
                missing.append(name)
        for name in reversed(missing):
            path = self._parent + b"/" + name if self._parent else name
            implied = tar.Entry(path, tar.DIRECTORY)
            implied.mode, implied.mtime_ns = 0o755, _now_ns()
            implied.uid, implied.gid = self._owner or (0, 0)
            self._create(name, path, implied, ())

    def _open(self, path: bytes) -> int:
        """Open a directory.

        Raises:
            UsageError: a symlink that we don't follow is on the way.
            OSError: FileNotFoundError, or the kernel refused.
        """
        try:
            return open_beneath(self._base.fd, path or b".", READ_DIRECTORY)
        except OSError as error:
            if error.errno not in (ELOOP, ENOTDIR):
                raise
            if self._base.root_fd >= 0 and (real := self._follow(path)):
                return open_beneath(self._base.root_fd, real, READ_DIRECTORY)
            if error.errno == ENOTDIR:
                raise
            raise UsageError(
                f"cannot write to {self._shown(path)}: a symlink is on the way, which isn't followed",
                "write to another directory, or remove the symlink first",
            ) from error

    def _follow(self, path: bytes) -> bytes:
        """Resolve a directory's path below the container's root, without symlinks of this copy; b"" if that fails.

        Raises:
            OSError: FileNotFoundError, or the kernel refused.
        """
        waiting, real, links = path.split(b"/")[::-1], os.fsencode(self._base.path).split(b"/"), 0
        while waiting:
            part = waiting.pop()
            if part == b"..":
                del real[-1:]
            if part in (b"", b".", b".."):
                continue
            with closing(open_beneath(self._base.root_fd, _joined(*real, part), LOOK)) as fd:
                if not stat.S_ISLNK(os.fstat(fd).st_mode):
                    real.append(part)
                    continue
                links += 1
                if links > SYMLINKS_MAX or _identity(fd) in self._symlinks:
                    return b""
                target = os.readlink(b"", dir_fd=fd)
            real = [] if target.startswith(b"/") else real
            waiting += target.split(b"/")[::-1]
        return _joined(*real)

    def _forget_parent(self) -> None:
        if self._parent_fd >= 0:
            os.close(self._parent_fd)
            self._parent_fd = -1

    def _named(self, path: bytes) -> str:
        return f"{self._base.path.rstrip('/')}/{os.fsdecode(path)}".rstrip("/") or "/"

    def _shown(self, path: bytes) -> str:
        return ascii(self._named(path))


class _Pieces:
    """Cuts content into pieces of given lengths."""

    def __init__(self, content: Iterable[memoryview]) -> None:
        self._content = iter(content)
        self._left = memoryview(b"")

    def take(self, length: int) -> Iterable[memoryview]:
        while length:
            self._left = self._left or next(self._content)
            piece = self._left[:length]
            self._left = self._left[length:]
            length -= len(piece)
            yield piece


def _unlink(name: bytes, dir_fd: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=dir_fd)


def _mount_id(fd: int) -> bytes:
    """Return the id of the mount that a file was opened through; proc_pid_fdinfo(5), Linux 3.15."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(line for line in file if line.startswith(b"mnt_id:"))


def _identity(fd: int) -> Identity:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _joined(*parts: bytes) -> bytes:
    return b"/".join(filter(None, parts)) or b"."


def _now_ns() -> int:
    from time import time_ns

    return time_ns()
