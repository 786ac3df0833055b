"""Whether an unpacked layer is what its blob says: each file compared while the tar streams.

For layers in overlayfs's form. Owners and times are not compared: an ordinary user's layers have others.
"""

from __future__ import annotations

import os
import stat

from minibox.image import tar
from minibox.image.compression import Pump
from minibox.image.entry_names import split_name
from minibox.image.stack import is_whiteout
from minibox.image.whiteouts import OPAQUE_MARKER, WHITEOUT_PREFIX
from minibox.linux.files import open_beneath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHUNK_BYTES = 1 << 18
TYPES = {
    tar.DIRECTORY: (stat.S_IFDIR, "directory"),
    tar.REGULAR: (stat.S_IFREG, "file"),
    tar.SYMLINK: (stat.S_IFLNK, "symlink"),
    tar.FIFO: (stat.S_IFIFO, "FIFO"),
}


def compare(blob_path: str, layer_fd: int) -> tuple[str, ...]:
    """What is wrong with the layer in the directory ``layer_fd``; nothing when it is as the tar ``blob_path`` says.

    Raises:
        MiniboxError: the blob is damaged.
        OSError: it can't be read.
    """
    with open(blob_path, "rb") as file, Pump(file) as pump:
        return _compare(tar.TarReader(pump.read_chunk), layer_fd)


def _compare(reader: tar.TarReader, layer_fd: int) -> tuple[str, ...]:
    wrong: dict[bytes, str] = {}  # "" for what is right; the last entry of a name counts
    parents: set[bytes] = set()
    hidden: set[bytes] = set()
    while (entry := reader.next()) is not None:
        parts = split_name(entry.name)
        path = b"/".join(parts)
        parents.update(b"/".join(parts[:length]) for length in range(1, len(parts)))
        if not parts:
            continue
        if parts[-1].startswith(WHITEOUT_PREFIX):
            if not parts[-1].startswith(OPAQUE_MARKER[:8]):
                hidden.add(b"/".join((*parts[:-1], parts[-1][len(WHITEOUT_PREFIX) :])))
            continue
        wrong[path] = _difference(entry, path, reader.content(), layer_fd)
    for path in hidden - wrong.keys():
        status = _status(path, layer_fd)
        wrong[path] = "" if status is not None and is_whiteout(status) else "its whiteout is missing"
    known = parents | wrong.keys()
    found = [f"{_shown(path)}: {why}" for path, why in wrong.items() if why]
    found += [f"{_shown(path)}: not in the layer's blob" for path in _names(layer_fd) if path not in known]
    return tuple(found)


def _difference(entry: tar.Entry, path: bytes, content: Iterable[memoryview], layer_fd: int) -> str:
    """What is different in the file at ``path``, or ""."""
    status = _status(path, layer_fd)
    if entry.kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
        return ""  # not every user can make one
    if status is None:
        return "it is missing"
    if entry.kind == tar.HARD_LINK:
        target = _status(b"/".join(split_name(entry.link)), layer_fd)
        return "" if target and os.path.samestat(status, target) else f"no hard link to {_shown(entry.link)}"
    kind, word = TYPES[entry.kind]
    if stat.S_IFMT(status.st_mode) != kind:
        return f"it is no {word}"
    if kind == stat.S_IFLNK:
        return "" if _target(path, layer_fd) == entry.link else "the symlink leads elsewhere"
    if stat.S_IMODE(status.st_mode) != stat.S_IMODE(entry.mode):
        return f"mode {stat.S_IMODE(status.st_mode):04o} instead of {stat.S_IMODE(entry.mode):04o}"
    if kind != stat.S_IFREG:
        return ""
    if status.st_size != entry.size:
        return f"{status.st_size} bytes instead of {entry.size}"
    return "" if entry.sparse is not None or _same(path, content, layer_fd) else "another content"


def _same(path: bytes, content: Iterable[memoryview], layer_fd: int) -> bool:
    try:
        fd = open_beneath(layer_fd, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        for piece in content:
            left = piece
            while left:
                data = os.read(fd, min(len(left), CHUNK_BYTES))
                if not data or data != left[: len(data)]:
                    return False
                left = left[len(data) :]
        return True
    finally:
        os.close(fd)


def _status(path: bytes, layer_fd: int) -> os.stat_result | None:
    try:
        fd = open_beneath(layer_fd, path or b".", os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _target(path: bytes, layer_fd: int) -> bytes:
    fd = open_beneath(layer_fd, path, os.O_PATH | os.O_NOFOLLOW)
    try:
        return os.readlink(b"", dir_fd=fd)
    finally:
        os.close(fd)


def _names(layer_fd: int) -> Iterator[bytes]:
    """All paths in the layer but whiteouts."""
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        try:
            fd = open_beneath(layer_fd, directory or b".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    path = directory + b"/" + os.fsencode(entry.name) if directory else os.fsencode(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    if not is_whiteout(entry.stat(follow_symlinks=False)):
                        yield path
        finally:
            os.close(fd)


def _shown(path: bytes) -> str:
    return "/" + path.decode("utf-8", "backslashreplace").lstrip("/")
