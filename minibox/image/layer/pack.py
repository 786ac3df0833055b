"""Pack a layer: the same content gives the same bytes, and so the same digest.

Entries are sorted by name, owners are numbers, times are the files' own in whole seconds. Nothing depends on the
machine or
on the current time: no directory sizes, inode numbers or access times, and no record of which blocks are holes. So a
sparse file is written in full, as Docker does; compression makes it small.

The format is POSIX.1-2001's pax: a ustar header, and before it a pax header if a value doesn't fit or there are xattrs
(``SCHILY.xattr.``, from OCI image-spec 1.1, layer.md). `tarfile` writes the same, five times slower.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from itertools import groupby, repeat

from minibox.errors import StoreError
from minibox.image.layer.changes import Change
from minibox.image.layer.entry_names import PATH_BYTES_MAX
from minibox.image.layer.extract import XATTR_HEADER_PREFIX
from minibox.image.layer.owners import CAPABILITY, without_namespace
from minibox.image.layer.stack import Child, Node, is_gone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from minibox.image.layer.compression import Writable
    from minibox.image.layer.stack import SmallFile

Owner = tuple[int, int]

REGULAR, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO, PAX = b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"x"
KINDS = {
    stat.S_IFREG: REGULAR,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
}
# A header is the name (100 bytes), these numbers, the checksum (8 bytes), and then:
# type, link's target, magic and version, user, group, device, prefix
NUMBERS, NUMBERS_BYTES = b"%07o\0%07o\0%07o\0%011o\0%011o\0", 48  # mode, uid, gid, size, mtime
END = struct.Struct("c100s8s32s32s8s8s155s12x")
MAGIC = b"ustar\x0000"
BLOCK_BYTES = 512
CHUNK_BYTES = 1 << 20
SECOND_NS = 1_000_000_000
WHITEOUT = ".wh."


class LayerWriter:
    """Writes one layer's tar to ``file``; `close` returns its diff ID.

    Entries are written in the order in which you add them. Modes are as for chmod(2), times in seconds. Names are
    relative, as `os.fsdecode` returns them.

    Attributes:
        files_bytes: the size of all regular files so far, hard links once: as `layer.size` counts.
    """

    def __init__(self, file: Writable, *, mtime_s: int = 0, settled: bool = False) -> None:
        """
        Args:
            settled: nobody changes the trees that are packed, as a running container may. Then many files are read at once.
        """
        self.files_bytes = 0
        self._is_settled = settled
        self._file = file
        self._hasher = hashlib.sha256()
        self._size_bytes = 0
        self._mtime_s = mtime_s
        self._inodes: dict[tuple[int, int], bytes] = {}

    def add_directory(self, name: str, mode: int = 0o755, owner: Owner = (0, 0)) -> None:
        self._write(header(_directory_name(name), DIRECTORY, mode, owner, mtime_s=self._mtime_s))

    def add_file(self, name: str, content: bytes, mode: int = 0o644, owner: Owner = (0, 0)) -> None:
        size = len(content)
        self._write(header(os.fsencode(name), REGULAR, mode, owner, size=size, mtime_s=self._mtime_s))
        self._write(content + bytes(-size % BLOCK_BYTES))
        self.files_bytes += size

    def add_symlink(self, name: str, target: str) -> None:
        link = os.fsencode(target)
        self._write(header(os.fsencode(name), SYMLINK, 0o777, (0, 0), link=link, mtime_s=self._mtime_s))

    def add_whiteout(self, path: str) -> None:
        """Record that ``path`` of the layers below was removed."""
        parent, name = os.path.split(path)
        self._write(header(os.fsencode(os.path.join(parent, WHITEOUT + name)), REGULAR, 0, (0, 0)))

    def add_node(self, node: Node, name: str | None = None) -> None:
        """Add a file of a stack, without what is below it. A socket is left out.

        If a file grows or shrinks meanwhile, it is cut or filled with zeros.

        Args:
            name: the default is its path; ``.`` for the root.

        Raises:
            StoreError: the name is longer than readers of images accept.
            OSError: with the path; `stack.is_gone` if it was removed meanwhile, and then nothing was added.
        """
        status = node.status
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return  # a socket: useless without its process
        path = (node.path or ".") if name is None else name
        entry = _directory_name(path) if kind == DIRECTORY else os.fsencode(path)
        if len(entry) > PATH_BYTES_MAX:
            raise _too_long(path)
        link, xattrs, content, size = b"", {}, -1, 0
        if status.st_nlink > 1 and kind != DIRECTORY:
            first = self._inodes.get(node.identity, entry)
            if first != entry:
                kind, link = LINK, first
        if kind == SYMLINK:
            link = node.readlink()
        if kind in (REGULAR, DIRECTORY):
            xattrs = node.xattrs()
        if kind == REGULAR:
            content, size = node.open(os.O_RDONLY), status.st_size
        try:
            self._write(
                header(
                    entry, kind, stat.S_IMODE(status.st_mode), node.owner, size=size,
                    mtime_s=status.st_mtime_ns // SECOND_NS, link=link, xattrs=xattrs, device=status.st_rdev,
                )
            )  # fmt: skip
            if size:
                self._copy(content, size, path)
            self.files_bytes += size
        finally:
            if content >= 0:
                os.close(content)
        if status.st_nlink > 1 and kind not in (DIRECTORY, LINK):
            self._inodes[node.identity] = entry  # only now: a link to an entry that was never written can't be unpacked

    def add_below(
        self,
        directory: Node,
        rename: Callable[[str], str] = lambda path: path,
        without: Callable[[Node], bool] = lambda node: False,
    ) -> None:
        """Add everything below a directory: each directory before its content, sorted within it.

        Args:
            rename: returns the name of an entry for its path in the stack.
            without: tells whether to leave out a file, with everything below it. It isn't asked about small files if
                nobody changes the tree.
        """
        levels = [(directory, self._children(directory))]
        while levels:
            above, children = levels[-1]
            try:
                name, listed, small = next(children)
                if small:
                    self._add_small(rename(above.path_of(name)), small)
                    continue
                node = above.child(name, listed)
            except StopIteration:
                levels.pop()
                if levels:
                    above.close()
                continue
            except OSError as error:
                if not is_gone(error):
                    raise
                continue
            try:
                if without(node):
                    continue
                self.add_node(node, rename(node.path))
                if node.is_directory:
                    levels.append((node, self._children(node)))
            except OSError as error:
                if not is_gone(error):
                    raise
            finally:
                if levels[-1][0] is not node:
                    node.close()

    def add_changes(self, changes: Iterable[Change]) -> int:
        """Add what `changes.changes` finds, and return how many changes there are.

        Raises:
            StoreError: a file's name has a special meaning in a layer.
        """
        count = 0
        for change in changes:
            count += 1
            if change.node is None:
                self.add_whiteout(change.path[1:])
                continue
            _check_name(change.path[1:])
            try:
                self.add_node(change.node)
                if change.is_tree:
                    self.add_below(change.node, _check_name)
            except OSError as error:
                if not is_gone(error):
                    raise
        return count

    def close(self) -> tuple[str, int]:
        """Finish the tar, and return its diff ID and its size in bytes."""
        self._write(bytes(2 * BLOCK_BYTES))
        return "sha256:" + self._hasher.hexdigest(), self._size_bytes

    def _children(self, directory: Node) -> Iterator[tuple[str, Child, SmallFile | None]]:
        """Yield the content of a directory, sorted, with small files read if that is safe."""
        listed = sorted(directory.children().items(), key=lambda item: item[0])
        if not self._is_settled:
            for name, child in listed:
                yield name, child, None
            return
        own = directory.layers[:1]
        for are_small, group in groupby(listed, lambda item: not item[1].is_directory and item[1].layers == own):
            some = list(group)
            found = directory.read_small([name for name, _ in some]) if are_small else repeat(None)
            for (name, child), small in zip(some, found):
                yield name, child, small

    def _add_small(self, path: str, file: SmallFile) -> None:
        mode, owner, mtime_ns, content = file
        name, size = os.fsencode(path), len(content)
        if len(name) > PATH_BYTES_MAX:
            raise _too_long(path)
        before = header(name, REGULAR, mode, owner, size=size, mtime_s=mtime_ns // SECOND_NS)
        self._write(b"%b%b%b" % (before, content, bytes(-size % BLOCK_BYTES)))
        self.files_bytes += size

    def _copy(self, fd: int, size: int, path: str) -> None:
        left = size
        while left and (chunk := _read(fd, min(left, CHUNK_BYTES), path)):
            self._write(chunk)
            left -= len(chunk)
        while left:
            chunk = bytes(min(left, CHUNK_BYTES))
            self._write(chunk)
            left -= len(chunk)
        self._write(bytes(-size % BLOCK_BYTES))

    def _write(self, data: bytes) -> None:
        self._hasher.update(data)
        self._size_bytes += len(data)
        self._file.write(data)


def _read(fd: int, size: int, path: str) -> bytes:
    try:
        return os.read(fd, size)
    except OSError as error:  # with the path, so that it isn't taken for an error of writing
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from error


def header(
    name: bytes,
    kind: bytes,
    mode: int,
    owner: Owner,
    *,
    size: int = 0,
    mtime_s: int = 0,
    link: bytes = b"",
    xattrs: dict[str, bytes] | None = None,
    device: int = 0,
) -> bytes:
    """Return the header of one entry, after a pax header if it needs one."""
    records = {XATTR_HEADER_PREFIX + key: _portable(key, value) for key, value in (xattrs or {}).items()}
    for key, text in (("path", name), ("linkpath", link)):
        if len(text) > 100 or not text.isascii():
            records[key] = text
    uid, gid = owner
    numbers = NUMBERS % (mode, uid, gid, size, mtime_s)
    if len(numbers) != NUMBERS_BYTES or b"-" in numbers:  # a negative one, or one with too many digits
        given = {"uid": (uid, 7), "gid": (gid, 7), "size": (size, 11), "mtime": (mtime_s, 11)}
        large = {key: number for key, (number, digits) in given.items() if not 0 <= number < 8**digits}
        records.update({key: b"%d" % number for key, number in large.items()})
        kept = (0 if key in large else number for key, (number, _) in given.items())
        numbers = NUMBERS % (mode, *kept)
    before = _pax(records) if records else b""
    nodes = (os.major(device), os.minor(device)) if kind in (CHARACTER, BLOCK) else (0, 0)
    return before + _block(name[:100], numbers, kind, link[:100], nodes)


def _pax(records: dict[str, bytes]) -> bytes:
    """Return a pax header with its records."""
    if any(not _is_utf8(records.get(key, b"")) for key in ("path", "linkpath")):
        records = {"hdrcharset": b"BINARY", **records}
    data = b""
    for key in sorted(records, key=lambda key: (key != "hdrcharset", key)):
        record = b" %s=%s\n" % (os.fsencode(key), records[key])
        length = len(record)
        while len(str(length)) + len(record) != length:  # the length counts its own digits
            length = len(str(length)) + len(record)
        data += b"%d" % length + record
    numbers = NUMBERS % (0, 0, 0, len(data), 0)
    return _block(b"././@PaxHeader", numbers, PAX, b"", (0, 0)) + data + bytes(-len(data) % BLOCK_BYTES)


def _block(name: bytes, numbers: bytes, kind: bytes, link: bytes, device: tuple[int, int]) -> bytes:
    begin = name.ljust(100, b"\0") + numbers
    is_plain = kind in PLAIN_ENDS and not link and device == (0, 0)
    end, checksum = PLAIN_ENDS[kind] if is_plain else _end(kind, link, device)
    return b"%b%06o\0 %b" % (begin, sum(begin) + checksum, end)


def _end(kind: bytes, link: bytes, device: tuple[int, int]) -> tuple[bytes, int]:
    """Return what follows the checksum in a header, and the part of the checksum that doesn't depend on its begin."""
    end = END.pack(kind, link, MAGIC, b"", b"", b"%07o\0" % device[0], b"%07o\0" % device[1], b"")
    return end, sum(end) + 8 * ord(" ")


#: The end of a header without a link or a device.
PLAIN_ENDS = {kind: _end(kind, b"", (0, 0)) for kind in (REGULAR, DIRECTORY, FIFO, PAX)}


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _portable(name: str, value: bytes) -> bytes:
    """Return an xattr's value without ids of this host."""
    return without_namespace(value) if name == CAPABILITY else value


def _check_name(path: str) -> str:
    """Return ``path``, if a file of a layer may have that name."""
    if path.rpartition("/")[2].startswith(WHITEOUT):
        raise StoreError(
            f"pack {ascii('/' + path)}: in a layer, such a name means that another file was removed",
            "remove or rename it in the container",
        )
    return path


def _too_long(path: str) -> StoreError:
    return StoreError(
        f"pack {ascii(path[:60])}...: its path is longer than {PATH_BYTES_MAX} bytes",
        "move it up, or remove it: readers of archives don't accept longer paths",
    )


def _directory_name(name: str) -> bytes:
    return os.fsencode(name.rstrip("/") + "/")
