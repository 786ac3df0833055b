"""The two ends of a copy below a root directory: pack a file or a tree into a tar, and unpack the tar."""

from __future__ import annotations

import os
import stat
from errno import ENOENT, ENOTDIR
from posixpath import normpath

from minibox.engine.files.path_resolution import find, open_straight
from minibox.errors import StoreError, UsageError
from minibox.image.layer.compression import Pump
from minibox.image.layer.entry_names import split_name
from minibox.image.layer.pack import LayerWriter
from minibox.image.layer.placer import Base, Placer
from minibox.image.layer.stack import Node, Stack
from minibox.image.layer.tar import DIRECTORY, HARD_LINK, Entry, TarReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO


OPEN_DIRECTORY = os.O_PATH | os.O_DIRECTORY


def pack(root_fd: int, path: str, follow: bool, file: BinaryIO, without: frozenset[int] = frozenset()) -> int:
    """Write ``path`` below ``root_fd``, and everything below it, as a tar; return its size in bytes.

    Names in the tar begin with the last part of ``path``. They begin with "." if only the content of a directory is
    copied: for the root directory and for a path that ends in ``/.``.

    Args:
        follow: if ``path`` is a symlink, copy what it leads to; a slash at the end does the same.
        without: see `minibox.image.layer.stack.Stack`.

    Raises:
        OSError: it doesn't exist or can't be read; has the path.
    """
    _, fd = find(root_fd, path, follow or _is_directory_name(path))
    if fd < 0:
        raise FileNotFoundError(ENOENT, os.strerror(ENOENT), path)
    with Stack([fd], "", without) as stack:
        return _pack(stack.root, path, file)


def pack_of(stack: Stack, path: str, follow: bool, file: BinaryIO) -> int:
    """Like `pack`, but read from a stack of layers."""
    node = stack.find(normpath(f"/{path}"), follow=follow or _is_directory_name(path))
    if node is None:
        raise FileNotFoundError(ENOENT, os.strerror(ENOENT), path)
    with node:
        return _pack(node, path, file)


def _pack(node: Node, path: str, file: BinaryIO) -> int:
    if _is_directory_name(path) and not node.is_directory:
        raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR), path)
    name, start = "." if _means_content(path) else os.path.basename(normpath(path)), len(node.path)
    writer = LayerWriter(file)
    writer.add_node(node, name)
    if node.is_directory:
        writer.add_below(node, lambda inner: f"{name}/{inner[start:].lstrip('/')}")
    return writer.close()[1]


def receive(
    root_fd: int,
    path: str,
    file: BinaryIO,
    owner: tuple[int, int] | None,
    *,
    privileged: bool,
    named: bool = True,
    on_host: bool = False,
) -> None:
    """Unpack a tar to ``path`` below ``root_fd``, by the rules of `docker cp`.

    Args:
        owner, privileged: see `minibox.image.layer.placer.Placer`.
        named: the tar comes from `pack`, and its first entry may be renamed; otherwise everything goes into the
            directory ``path``.
        on_host: the root is the host's.

    Raises:
        UsageError: ``path`` can't hold what is copied.
        StoreError: the tar is damaged.
        OSError: the kernel refused; has the path.
    """
    with Pump(file) as pump:
        reader = TarReader(pump.read_chunk)
        entry = reader.next()
        if named and entry is None:
            raise StoreError("received nothing to copy")
        fd, directory, prefix, skipped = _place_of(root_fd, path, entry if named else None)
        base = Base(fd, directory, -1 if on_host else root_fd)
        with Placer(base, owner, privileged=privileged) as placer:
            while entry is not None:
                if named:
                    entry.name = _renamed(entry.name, prefix, skipped)
                    entry.link = _renamed(entry.link, prefix, skipped) if entry.kind == HARD_LINK else entry.link
                placer.place(entry, reader.content())
                entry = reader.next()
            placer.finish()


def _place_of(root_fd: int, path: str, first: Entry | None) -> tuple[int, str, list[bytes], int]:
    """Find where a tar goes: an open directory, its path, the prefix for the entries' names, and how many leading parts
    of a name the prefix replaces.

    Args:
        first: the topmost entry; None if the tar goes into a directory.
    """
    found, fd = find(root_fd, path, True)
    top = split_name(first.name)[:1] if first else []
    if fd >= 0:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            return fd, found, top, len(top)
        os.close(fd)
        _refuse(path, mode, first)
    elif first is None:
        raise _no_directory(path)
    elif _is_directory_name(path) and first.kind != DIRECTORY:
        raise UsageError(f"destination directory {path} does not exist", "make it first, or leave out the last slash")
    parent, name = os.path.split(found.rstrip("/"))
    return open_straight(root_fd, parent or "/", OPEN_DIRECTORY), parent or "/", [os.fsencode(name)], len(top)


def _refuse(path: str, mode: int, first: Entry | None) -> None:
    """Refuse to replace what is at ``path`` if ``first`` can't replace it.

    Raises:
        UsageError, OSError: with the reason.
    """
    if first is None:
        raise _no_directory(path)
    if first.kind == DIRECTORY:
        raise UsageError(f"cannot copy a directory to the file {path}")
    if _is_directory_name(path):
        raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR), path)
    if not stat.S_ISREG(mode):
        raise UsageError(f"destination {path} is neither a file nor a directory")


def _no_directory(path: str) -> UsageError:
    return UsageError(f"destination {path} must be an existing directory, since the source is an archive")


def _renamed(name: bytes, prefix: list[bytes], skipped: int) -> bytes:
    return b"/".join([*prefix, *split_name(name)[skipped:]])


def _is_directory_name(path: str) -> bool:
    return path.endswith(("/", "/.")) or path == "."


def _means_content(path: str) -> bool:
    return path == "." or path.endswith("/.") or normpath(f"/{path.lstrip('/')}") == "/"
