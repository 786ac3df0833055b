"""COPY and ADD: write the sources to the destination in a root file system, as BuildKit does.

Source: the Dockerfile reference ("COPY", "Destination", "COPY --chown --chmod"), and where it is silent BuildKit's
``solver/llbsolver/file`` and ``tonistiigi/fsutil/copy``.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from errno import EDQUOT, EINVAL, ELOOP, ENOSPC, EPERM
from posixpath import basename, dirname, normpath
from time import time_ns

from minibox.base.files import closing
from minibox.build.dockerfile.chmod import parse_chmod
from minibox.engine.files.path_resolution import find, open_straight
from minibox.engine.files.tar_copy import receive
from minibox.errors import BuildError, UsageError, kernel_says
from minibox.image.layer import tar
from minibox.image.layer.attributes import is_of_images, unmapped
from minibox.image.layer.placer import DEVICES, Base, Placer
from minibox.linux.listing import RECORD
from minibox.linux.small_files import FILES_MAX, is_small_file
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

    from minibox.build.context.context import Context, Selection
    from minibox.build.context.selection import Selected, Source

CHUNK_BYTES = 1 << 20
KINDS = {
    stat.S_IFREG: tar.REGULAR,
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFIFO: tar.FIFO,
}


@record
class Given:
    """What the new files get.

    Attributes:
        owner: the owner of all; None keeps the sources' owners.
        archive_owner: the same for what is unpacked from an archive.
        mode: --chmod, octal or symbolic; "" keeps the sources' modes.
        time_ns: the time of all files; None keeps the sources' times.
    """

    owner: tuple[int, int] | None
    mode: str = ""
    time_ns: int | None = None
    archive_owner: tuple[int, int] | None = None

    def give(self, entry: tar.Entry) -> tar.Entry:
        if self.owner is not None:
            entry.uid, entry.gid = self.owner
        if self.time_ns is not None:
            entry.mtime_ns = self.time_ns
        if self.mode and entry.kind != tar.SYMLINK:
            entry.mode = parse_chmod(self.mode)(entry.mode, entry.kind == tar.DIRECTORY)
        return entry


class Destination:
    """Where sources go: a directory, or the name of one file."""

    def __init__(
        self,
        root_fd: int,
        path: str,
        given: Given,
        *,
        is_directory: bool,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Find the destination, and make the directories that are missing.

        Args:
            check: called often; it raises if the build was ended.
            path: absolute.
            is_directory: it is one, whatever is there: it ends in a slash, or there are several sources.

        Raises:
            BuildError: something else is in the way.
        """
        self._root_fd, self._given, self._check = root_fd, given, check
        self._name = "" if is_directory or _is_directory(root_fd, path) else basename(normpath(path))
        self._path = self._make(dirname(normpath(path)) if self._name else normpath(path))
        self._whole = normpath(path)

    def write(self, context: Context, selection: Selection) -> None:
        """Write what was selected in a context.

        Raises:
            BuildError: a source has changed meanwhile, or something is in the way.
            OSError: the kernel refused; with the path.
        """
        for source in selection.sources:
            self.write_source(context, source)

    def write_source(self, context: Context, source: Source) -> None:
        """Write one source of a selection; see `write`."""
        if source.is_directory and self._name:
            self._path, self._name = self._make(self._whole), ""
        name = "" if source.is_directory else self._name or source.name
        with self._placer() as placer:
            for files in _together(source):
                if len(files) > 1:
                    self._place_together(placer, context, files)
                    continue
                to = "/".join(part for part in (name, files[0].to) if part)
                if to:
                    self._place(placer, context, files[0], to, files[0].link if source.is_directory else "")
            placer.finish()

    def write_file(self, name: str, content: Iterable[memoryview], size: int, mode: int, mtime_ns: int) -> None:
        """Write one file that isn't in a context."""
        entry = tar.Entry(os.fsencode(self._name or name), tar.REGULAR)
        entry.mode, entry.size, entry.mtime_ns = mode, size, mtime_ns
        with self._placer() as placer:
            placer.place(self._given.give(entry), content)
            placer.finish()

    def write_text(self, name: str, text: str) -> None:
        """Write a heredoc."""
        content = text.encode("utf-8", "surrogateescape")
        self.write_file(name, [memoryview(content)], len(content), 0o644, time_ns())

    def unpack(self, file: BinaryIO) -> None:
        """Unpack a tar, plain or compressed, into the destination, which is a directory.

        Raises:
            StoreError: the tar is damaged.
        """
        if self._name:
            self._path, self._name = self._make(self._whole), ""
        receive(self._root_fd, self._path, file, self._given.archive_owner, privileged=True, named=False)

    def _placer(self) -> Placer:
        fd = open_straight(self._root_fd, self._path, os.O_PATH | os.O_DIRECTORY)
        return Placer(Base(fd, self._path, self._root_fd), None, privileged=True)

    def _place(self, placer: Placer, context: Context, selected: Selected, to: str, link: str) -> None:
        self._check()
        name = os.fsencode(to)
        if link:
            entry = tar.Entry(name, tar.HARD_LINK)
            entry.link = os.fsencode(link)
            placer.place(entry, ())
            return
        fd = context.open(selected)
        try:
            status = os.fstat(fd)
            entry = _entry(name, fd, status)
            content = self._checked(_content(fd, status, entry)) if entry.kind == tar.REGULAR else ()
            with _refusals(selected, entry.kind):
                placer.place(self._given.give(entry), content)
            context.check(selected, fd)
        finally:
            os.close(fd)

    def _place_together(self, placer: Placer, context: Context, files: list[Selected]) -> None:
        """Write small files of one directory of a source."""
        self._check()
        small: list[tuple[Selected, tar.Entry, bytes]] = []
        for selected, content in zip(files, context.read_small(files)):
            if content is None:
                self._place(placer, context, selected, selected.to, "")
            else:
                small.append((selected, self._given.give(_small_entry(selected)), content))
        made = placer.place_small([(entry, content) for _, entry, content in small])
        for selected, entry, content in small[made:]:
            with _refusals(selected, entry.kind):
                placer.place(entry, [memoryview(content)])

    def _checked(self, content: Iterable[memoryview]) -> Iterator[memoryview]:
        for piece in content:
            self._check()
            yield piece

    def _make(self, path: str) -> str:
        """Make a directory and those above it; return its path without symlinks."""
        real = ""
        for part in filter(None, path.split("/")):
            try:
                found, fd = find(self._root_fd, f"{real}/{part}", True)
            except OSError as error:
                raise BuildError(f"cannot copy to {path}: {kernel_says(error)}") from error
            if fd < 0:
                found = self._make_one(found)
            else:
                is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
                os.close(fd)
                if not is_directory:
                    raise BuildError(f"cannot copy to {path}: {found} is not a directory")
            real = found.rstrip("/")
        return real or "/"

    def _make_one(self, path: str) -> str:
        """Make a directory: the target of a dangling symlink may need several."""
        parent, name = os.path.split(path)
        try:
            above = open_straight(self._root_fd, parent or "/", os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            self._make_one(parent)
            above = open_straight(self._root_fd, parent, os.O_RDONLY | os.O_DIRECTORY)
        owner = self._given.owner or (0, 0)
        try:
            with closing(above):
                os.mkdir(name, 0o755, dir_fd=above)
                made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            with closing(made):
                os.fchown(made, *owner)
                os.fchmod(made, 0o755)
                if self._given.time_ns is not None:
                    os.utime(made, ns=(self._given.time_ns, self._given.time_ns))
        except OSError as error:
            if error.errno == EINVAL:
                raise unmapped(f"the directory {path}", *owner) from error
            raise BuildError(f"cannot make the directory {path}: {kernel_says(error)}") from error
        return path


@contextmanager
def _refusals(selected: Selected, kind: bytes) -> Iterator[None]:
    """Turn the kernel's refusal of a copy into words."""
    try:
        yield
    except UsageError as error:
        raise BuildError(str(error).replace("cannot overwrite", "cannot copy over"), error.hint) from error
    except OSError as error:
        hint = None
        if error.errno == EPERM and kind in DEVICES:
            hint = "an ordinary user can't make devices: name it in .dockerignore, or build as root"
        elif error.errno in (ENOSPC, EDQUOT):
            hint = "free some space: `minibox builder prune` removes what builds keep"
        raise BuildError(f"cannot copy {ascii(selected.path)}: {kernel_says(error)}", hint) from error


def _together(source: Source) -> Iterator[list[Selected]]:
    """Yield a directory's files, in order: small ones that follow each other together, and all else one by one."""
    waiting: list[Selected] = []
    above = ""
    for selected in source.selected():
        directory = selected.path.rpartition("/")[0]
        is_small = source.is_directory and is_small_file(selected.status)
        if waiting and (not is_small or directory != above or len(waiting) == FILES_MAX):
            yield waiting
            waiting = []
        if is_small:
            waiting.append(selected)
            above = directory
        else:
            yield [selected]
    if waiting:
        yield waiting


def _small_entry(selected: Selected) -> tar.Entry:
    """A file that `Context.read_small` has read: it has no extended attributes."""
    fields = RECORD.unpack(selected.status)
    entry = tar.Entry(os.fsencode(selected.to), tar.REGULAR)
    entry.size, entry.mtime_ns = fields[2:4]
    entry.mode, entry.uid, entry.gid = stat.S_IMODE(fields[5]), *fields[6:8]
    return entry


def _is_directory(root_fd: int, path: str) -> bool:
    if path.endswith("/"):
        return True
    try:
        _, fd = find(root_fd, normpath(path), True)
    except OSError as error:
        if error.errno == ELOOP:
            raise BuildError(f"cannot copy to {path}: {kernel_says(error)}") from error
        return False
    if fd < 0:
        return False
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _entry(name: bytes, fd: int, status: os.stat_result) -> tar.Entry:
    kind = KINDS[stat.S_IFMT(status.st_mode)]
    entry = tar.Entry(name, kind)
    entry.mode = stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid, entry.mtime_ns = status.st_uid, status.st_gid, status.st_mtime_ns
    if kind == tar.SYMLINK:
        entry.link = os.readlink(b"", dir_fd=fd)
    elif kind == tar.REGULAR:
        entry.size = status.st_size
    elif kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
        entry.device = os.major(status.st_rdev), os.minor(status.st_rdev)
    if kind in (tar.REGULAR, tar.DIRECTORY):
        names = [key for key in os.listxattr(fd) if is_of_images(os.fsencode(key))]
        if names:
            entry.xattrs = {os.fsencode(key): os.getxattr(fd, key) for key in names}
    return entry


def _content(fd: int, status: os.stat_result, entry: tar.Entry) -> Iterable[memoryview]:
    """A file's content; of a sparse file only its data, and ``entry`` says where the holes are."""
    if status.st_blocks * 512 < status.st_size:
        entry.sparse = list(_data(fd, status.st_size))
        return _read(fd, entry.sparse)
    return _read(fd, [(0, status.st_size)])


def _read(fd: int, pieces: list[tuple[int, int]]) -> Iterator[memoryview]:
    for offset, length in pieces:
        end = offset + length
        while offset < end:
            data = os.pread(fd, min(CHUNK_BYTES, end - offset), offset)
            if not data:
                raise BuildError("a file became shorter while it was copied", "build again")
            yield memoryview(data)
            offset += len(data)


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: only a hole is left
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin, end - begin
