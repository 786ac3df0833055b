"""Writing a tar's entries into a root file system that others may be using: `minibox cp`.

Unlike a layer, it has no whiteouts, follows the symlinks that are there, and refuses to put a file in a directory's
place. Directories are opened by openat2(2) as who has that root sees them, so that no symlink leads out, whenever it
was made; all else is done to one name in an open directory.
"""

from __future__ import annotations

import os
import stat
from errno import EBUSY

from minibox.errors import UsageError
from minibox.image import tar
from minibox.image.attributes import LayerAttributes
from minibox.image.entry_names import split_name
from minibox.linux.files import open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

NODES = {tar.FIFO: stat.S_IFIFO, tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK}
SET_IDS = stat.S_ISUID | stat.S_ISGID
READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


class Placer:
    """Puts entries below ``directory``, an absolute path as ``root_fd`` has it; for use in a ``with`` statement.

    Args:
        owner: of all that is made; None for the owners in the archive. Who is no root of any kind
            can't choose: then files are his.
        privileged: set-user-ID bits and file capabilities are kept.
    """

    def __init__(self, root_fd: int, directory: str, owner: tuple[int, int] | None, *, privileged: bool) -> None:
        self._root_fd = root_fd
        self._base = directory.rstrip("/")
        self._owner = owner
        self._privileged = privileged
        self._attributes = LayerAttributes("auto", replace=True)
        self._parent = b""
        self._parent_fd = -1
        self._directories: dict[bytes, tar.Entry] = {}

    def __enter__(self) -> Placer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._parent_fd >= 0:
            os.close(self._parent_fd)

    def place(self, entry: tar.Entry, content: Iterable[memoryview]) -> None:
        """Write one entry; ``content`` is a regular file's, of a sparse one without the holes.

        Raises:
            UsageError: a directory is where a file should go, or the other way round.
            StoreError: the entry's name leads out of the archive.
            OSError: the kernel refused, with the path.
        """
        components = split_name(entry.name)
        if not components:
            return  # the directory itself, which is there
        if self._owner is not None:
            entry.uid, entry.gid = self._owner
        if not self._privileged:
            entry.mode &= ~SET_IDS
            entry.xattrs = {name: value for name, value in entry.xattrs.items() if not name.startswith(b"security.")}
        path = b"/".join(components)
        try:
            self._open_parent(b"/".join(components[:-1]))
            self._create(components[-1], path, entry, content)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), self._named(path)) from error

    def finish(self) -> None:
        """Give directories their attributes, which filling them would change, the deepest first."""
        for path in sorted(self._directories, key=lambda path: path.count(b"/"), reverse=True):
            fd = open_in_root(self._root_fd, self._named(path), READ_DIRECTORY | os.O_NOFOLLOW)
            try:
                self._attributes.apply(fd, self._directories[path])
            finally:
                os.close(fd)

    def _create(self, name: bytes, path: bytes, entry: tar.Entry, content: Iterable[memoryview]) -> None:
        directory = self._parent_fd
        try:
            present = os.lstat(name, dir_fd=directory)
        except FileNotFoundError:
            present = None
        is_directory = present is not None and stat.S_ISDIR(present.st_mode)
        if entry.kind == tar.DIRECTORY:
            if present is None:
                os.mkdir(name, 0o700, dir_fd=directory)
            elif not is_directory:
                raise UsageError(f"cannot overwrite non-directory {self._shown(path)} with a directory")
            self._directories[path] = entry
            return
        if is_directory:
            raise UsageError(f"cannot overwrite directory {self._shown(path)} with a non-directory")
        mounted = present is not None and _mount_id(name, directory) != _mount_id(b".", directory)
        if present is not None and not mounted:
            os.unlink(name, dir_fd=directory)
        if entry.kind == tar.REGULAR:
            self._write_file(name, entry, content, mounted)
            return
        if mounted:
            raise OSError(EBUSY, "")
        if entry.kind == tar.HARD_LINK:
            target = b"/".join(split_name(entry.link))
            parent, _, target_name = target.rpartition(b"/")
            target_fd = open_in_root(self._root_fd, self._named(parent), READ_DIRECTORY)
            try:
                os.link(target_name, name, src_dir_fd=target_fd, dst_dir_fd=directory, follow_symlinks=False)
            finally:
                os.close(target_fd)
            return
        if entry.kind == tar.SYMLINK:
            os.symlink(entry.link, name, dir_fd=directory)
        else:
            os.mknod(name, NODES[entry.kind] | 0o600, os.makedev(*entry.device), dir_fd=directory)
        self._attributes.apply_at(name, directory, entry)

    def _write_file(self, name: bytes, entry: tar.Entry, content: Iterable[memoryview], mounted: bool) -> None:
        # What is mounted on a file, as on /etc/hosts, gets the content: unlink(2) would unmount it, since it is
        # mounted in another mount namespace only.
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        flags |= os.O_TRUNC | os.O_NONBLOCK if mounted else os.O_CREAT | os.O_EXCL
        with open(os.open(name, flags, 0o600, dir_fd=self._parent_fd), "wb", 1 << 20) as file:
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

    def _open_parent(self, path: bytes) -> None:
        """Let `_parent_fd` be that directory; one that the archive doesn't have an entry for is made."""
        if self._parent_fd >= 0:
            if path == self._parent:
                return
            os.close(self._parent_fd)
            self._parent_fd = -1
        self._parent = path
        try:
            self._parent_fd = open_in_root(self._root_fd, self._named(path), READ_DIRECTORY)
        except FileNotFoundError:
            if not path:
                raise
            above, _, name = path.rpartition(b"/")
            self._open_parent(above)
            implied = tar.Entry(path, tar.DIRECTORY)
            implied.mode, implied.mtime_ns = 0o755, _now_ns()
            implied.uid, implied.gid = self._owner or (0, 0)
            self._create(name, path, implied, ())
            self._open_parent(path)

    def _named(self, path: bytes) -> str:
        return f"{self._base}/{os.fsdecode(path)}" if path else self._base or "/"

    def _shown(self, path: bytes) -> str:
        return ascii(self._named(path))


class _Pieces:
    """Content in pieces of the lengths that are asked for."""

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


def _mount_id(name: bytes, dir_fd: int) -> bytes:
    """Which mount a file is seen through; proc_pid_fdinfo(5), Linux 3.15."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            return next(line for line in file if line.startswith(b"mnt_id:"))
    finally:
        os.close(fd)


def _now_ns() -> int:
    from time import time_ns

    return time_ns()
