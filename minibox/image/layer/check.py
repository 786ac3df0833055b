"""Check an unpacked layer against its blob: compare each file with the tar's entry.

For layers in overlayfs's form. Owners and times are not compared, because they differ in an ordinary user's layers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from errno import ENOENT
from hashlib import sha256

from minibox.base.files import closing, open_to_read
from minibox.image.layer import tar
from minibox.image.layer.compression import Pump
from minibox.image.layer.entry_names import join, split_name
from minibox.image.layer.stack import is_whiteout
from minibox.image.layer.tree import Directory, LayerTree, Leaf
from minibox.image.layer.whiteouts import NO_DIRECTORY, Lowers, Merge, is_opaque, opened

CHUNK_BYTES = 1 << 18
READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
DEVICES = (tar.CHARACTER, tar.BLOCK_DEVICE)
TYPES = {
    tar.REGULAR: (stat.S_IFREG, "file"),
    tar.SYMLINK: (stat.S_IFLNK, "symlink"),
    tar.FIFO: (stat.S_IFIFO, "FIFO"),
}


class File(Leaf):
    """A leaf, with its entry in the tar.

    Attributes:
        path: its first name.
        places: offset and length of each piece of a sparse file; None if it has no holes.
        digest: the digest of a regular file's content, without holes.
        inode: device and inode on disk, once we have seen it.
    """

    __slots__ = ("digest", "inode", "kind", "mode", "path", "places", "size")

    def __init__(self, entry: tar.Entry, path: bytes, content: Iterable[memoryview]) -> None:
        super().__init__(entry.link if entry.kind == tar.SYMLINK else b"")
        self.kind, self.mode, self.size, self.places = entry.kind, entry.mode, entry.size, entry.sparse
        self.path = path
        self.digest = _digest(content) if entry.kind == tar.REGULAR else b""
        self.inode: tuple[int, int] | None = None


def compare(blob_path: str, layer_fd: int, lower_fds: Sequence[int]) -> tuple[str, ...]:
    """Return what is wrong with the layer in the directory ``layer_fd``, compared with the tar ``blob_path``.

    Args:
        lower_fds: the directories of the layers below, topmost first.

    Raises:
        MiniboxError: the blob is damaged.
        OSError: it can't be read.
    """
    with open(open_to_read(blob_path), "rb") as file, Pump(file) as pump:
        tree = _read(tar.TarReader(pump.read_chunk))
    lowers = Lowers(lower_fds)
    merges = {merge.path: merge for merge in lowers.merges(tree.root)}
    wrong: list[str] = []
    waiting = [(b"", tree.root)]
    while waiting:
        path, directory = waiting.pop()
        merge = merges.get(path, Merge(path, directory))
        try:
            with opened(layer_fd, path) as fd:
                problems = [*_of_directory(fd, merge), *_of_names(fd, merge, lowers)]
        except OSError as error:
            if error.errno not in NO_DIRECTORY:
                raise
            wrong.append(f"{_shown(path)}: it is {'missing' if error.errno == ENOENT else 'not a directory'}")
            continue
        wrong += [f"{_shown(join(path, name) if name else path)}: {why}" for name, why in problems]
        for name, child in directory.children.items():
            if isinstance(child, Directory) and (child.is_real or name in merge.carried):
                waiting.append((join(path, name), child))
    return tuple(wrong)


def _read(reader: tar.TarReader) -> LayerTree:
    """Read the tree of a blob, with the entry of each file."""
    tree = LayerTree()
    while (entry := reader.next()) is not None:
        tree.one_more()
        components = split_name(entry.name)
        if not components:
            tree.root.entry = entry
        elif not tree.add_whiteout(components):
            path, parent = tree.parent(components)
            if entry.kind == tar.HARD_LINK:
                _, leaf = tree.linked(entry)
            else:
                leaf = File(entry, join(path, components[-1]), reader.content())
            tree.place(parent, components[-1], entry, leaf)
    return tree


def _of_directory(fd: int, merge: Merge) -> Iterator[tuple[bytes, str]]:
    """Yield what is wrong with a directory itself."""
    mode, entry = stat.S_IMODE(os.fstat(fd).st_mode), merge.directory.entry
    if entry is not None and merge.path and mode != stat.S_IMODE(entry.mode):
        yield b"", f"mode {mode:04o} instead of {stat.S_IMODE(entry.mode):04o}"
    if merge.opaque and not is_opaque(fd):
        yield b"", "it doesn't hide what is below"
    if merge.lowers and not merge.opaque and is_opaque(fd):
        yield b"", "it hides what is below"


def _of_names(fd: int, merge: Merge, lowers: Lowers) -> Iterator[tuple[bytes, str]]:
    """Yield what is wrong with the names in a directory, without what is below them."""
    children = merge.directory.children
    found = {os.fsencode(name): os.lstat(name, dir_fd=fd) for name in os.listdir(fd)}
    for name, status in found.items():
        leaf = children.get(name)
        if isinstance(leaf, File):
            why = _difference(leaf, name, status, fd)
            if why:
                yield name, why
        elif is_whiteout(status):
            # An extra whiteout does no harm, unless it hides something that should be visible or shows up itself.
            if name not in merge.whiteouts and (
                not merge.lowers or merge.opaque or lowers.shows(merge.lowers, join(merge.path, name))
            ):
                yield name, "not in the layer's blob"
        elif not (isinstance(leaf, Directory) and (leaf.is_real or name in merge.carried)):
            yield name, "not in the layer's blob"
    for name in children.keys() - found.keys():
        leaf = children[name]
        if isinstance(leaf, File) and leaf.kind not in DEVICES:  # an ordinary user can't make these
            yield name, "it is missing"
    for name in merge.whiteouts:
        if name not in found or not is_whiteout(found[name]):
            yield name, "its whiteout is missing"


def _difference(file: File, name: bytes, status: os.stat_result, dir_fd: int) -> str:
    """Return what is different in a file, or ""."""
    if file.kind in DEVICES:
        return ""
    if file.inode is None:
        file.inode = status.st_dev, status.st_ino
    elif file.inode != (status.st_dev, status.st_ino):
        return f"not a hard link to {_shown(file.path)}"
    else:
        return ""  # compared already, under its other name
    kind, word = TYPES[file.kind]
    if stat.S_IFMT(status.st_mode) != kind:
        return f"it is not a {word}"
    if kind == stat.S_IFLNK:
        return "" if os.readlink(name, dir_fd=dir_fd) == file.target else "the symlink leads elsewhere"
    if stat.S_IMODE(status.st_mode) != stat.S_IMODE(file.mode):
        return f"mode {stat.S_IMODE(status.st_mode):04o} instead of {stat.S_IMODE(file.mode):04o}"
    if kind != stat.S_IFREG:
        return ""
    if status.st_size != file.size:
        return f"{status.st_size} bytes instead of {file.size}"
    return "" if _digest_on_disk(name, dir_fd, file) == file.digest else "its content differs"


def _digest(content: Iterable[memoryview]) -> bytes:
    hasher = sha256()
    for piece in content:
        hasher.update(piece)
    return hasher.digest()


def _digest_on_disk(name: bytes, dir_fd: int, file: File) -> bytes:
    with closing(os.open(name, READ_FILE, dir_fd=dir_fd)) as fd:
        hasher = sha256()
        for begin, length in [(0, file.size)] if file.places is None else file.places:
            at, end = begin, begin + length
            while at < end and (data := os.pread(fd, min(CHUNK_BYTES, end - at), at)):
                hasher.update(data)
                at += len(data)
        return hasher.digest()


def _shown(path: bytes) -> str:
    return "/" + path.decode("utf-8", "backslashreplace").lstrip("/")
