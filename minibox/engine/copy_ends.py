"""The two ends of a copy: a file or a tree into a tar, and a tar into place, below a root directory."""

from __future__ import annotations

import os
import stat
from errno import ELOOP, ENOENT, ENOTDIR
from posixpath import normpath

from minibox.errors import StoreError, UsageError
from minibox.image.compression import Pump
from minibox.image.entry_names import split_name
from minibox.image.pack import LayerWriter
from minibox.image.place import Placer
from minibox.image.stack import Node, Stack
from minibox.image.tar import DIRECTORY, HARD_LINK, TarReader
from minibox.linux.files import open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from minibox.image.tar import Entry

SYMLINKS_MAX = 40  # path_resolution(7)
LOOK = os.O_PATH | os.O_NOFOLLOW
OPEN_DIRECTORY = os.O_PATH | os.O_DIRECTORY


def pack(root_fd: int, path: str, follow: bool, file: BinaryIO, without: frozenset[int] = frozenset()) -> int:
    """Write what ``path`` names below ``root_fd``, and all below it, as a tar; its size in bytes.

    Its entries begin with the last part of ``path``, or with "." where only the content of a directory is meant:
    for the root directory and for a path that ends in ``/.``.

    Args:
        follow: where ``path`` is a symlink, what it leads to is meant; so it is with a slash at the end.
        without: see `minibox.image.stack.Stack`.

    Raises:
        OSError: it isn't there, or can't be read, with the path.
    """
    found, status = find(root_fd, path, follow or _is_directory_name(path))
    if status is None:
        raise FileNotFoundError(ENOENT, os.strerror(ENOENT), path)
    is_directory = stat.S_ISDIR(status.st_mode)
    if _is_directory_name(path) and not is_directory:
        raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR), path)
    name = "." if _means_content(path) else os.path.basename(normpath(path))
    parent, last = (found, "") if is_directory else os.path.split(found)
    with Stack([open_in_root(root_fd, parent or "/", OPEN_DIRECTORY)], "", without) as stack:
        node = Node(last, (0,), is_directory)
        writer = LayerWriter(file)
        writer.add_node(stack, node, name)
        if is_directory:
            writer.add_below(stack, node, lambda inner: f"{name}/{inner}")
        return writer.close()[1]


def receive(
    root_fd: int,
    path: str,
    file: BinaryIO,
    owner: tuple[int, int] | None,
    *,
    privileged: bool,
    named: bool = True,
) -> None:
    """Write a tar to where ``path`` is below ``root_fd``, by the rules of `docker cp`.

    Args:
        owner, privileged: see `minibox.image.place.Placer`.
        named: the tar is one of `pack`'s, and its first entry may get another name; else all of it goes into the
            directory ``path``.

    Raises:
        UsageError: ``path`` can't be what is copied there.
        StoreError: it is no sound tar.
        OSError: the kernel refused, with the path.
    """
    found, status = find(root_fd, path, True)
    with Pump(file) as pump:
        reader = TarReader(pump.read_chunk)
        entry = reader.next()
        if named and entry is None:
            raise StoreError("nothing to copy has come")
        directory, prefix, skipped = _place_of(path, found, status, entry if named else None)
        with Placer(root_fd, directory, owner, privileged=privileged) as placer:
            while entry is not None:
                if named:
                    entry.name = _renamed(entry.name, prefix, skipped)
                    entry.link = _renamed(entry.link, prefix, skipped) if entry.kind == HARD_LINK else entry.link
                placer.place(entry, reader.content())
                entry = reader.next()
            placer.finish()


def find(root_fd: int, path: str, follow: bool) -> tuple[str, os.stat_result | None]:
    """The absolute path that ``path`` means below ``root_fd``, and what is there; None when nothing is.

    Args:
        follow: a symlink as its last part means what it leads to.

    Raises:
        OSError: it leads nowhere, with the path.
    """
    current = normpath(f"/{path.lstrip('/')}")
    for _ in range(SYMLINKS_MAX):
        try:
            fd = open_in_root(root_fd, current, LOOK)
        except FileNotFoundError:
            return current, None
        try:
            status = os.fstat(fd)
            if not (follow and stat.S_ISLNK(status.st_mode)):
                return current, status
            current = os.path.join(os.path.dirname(current), os.fsdecode(os.readlink(b"", dir_fd=fd)))
        finally:
            os.close(fd)
    raise OSError(ELOOP, os.strerror(ELOOP), path)


def _place_of(
    path: str, found: str, status: os.stat_result | None, first: Entry | None
) -> tuple[str, list[bytes], int]:
    """Where a tar goes: a directory, what its entries' names begin with there, and how many parts this replaces.

    Args:
        found, status: of `find` for ``path``.
        first: the entry of all that is copied; None where the tar just goes into a directory.
    """
    is_directory = status is not None and stat.S_ISDIR(status.st_mode)
    if first is None:
        if not is_directory:
            raise UsageError(f"destination {path} must be a directory that is there: an archive goes into it")
        return found, [], 0
    top = split_name(first.name)[:1]
    if is_directory:
        return found, top, len(top)
    if status is not None:
        if first.kind == DIRECTORY:
            raise UsageError(f"cannot copy a directory to the file {path}")
        if _is_directory_name(path):
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR), path)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"destination {path} is neither a file nor a directory")
    elif _is_directory_name(path) and first.kind != DIRECTORY:
        raise UsageError(f"destination directory {path} does not exist", "make it first, or leave out the last slash")
    parent, name = os.path.split(found.rstrip("/"))
    return parent or "/", [os.fsencode(name)], len(top)


def _renamed(name: bytes, prefix: list[bytes], skipped: int) -> bytes:
    return b"/".join([*prefix, *split_name(name)[skipped:]])


def _is_directory_name(path: str) -> bool:
    return path.endswith(("/", "/.")) or path == "."


def _means_content(path: str) -> bool:
    return path == "." or path.endswith("/.") or normpath(f"/{path.lstrip('/')}") == "/"
