"""What counts of a file: its kind, mode, owner, content or target, and extended attributes; not its times."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from errno import ENXIO

from minibox.build.context.tree import LOOK, READ_DIRECTORY, mode_of, size_of
from minibox.errors import BuildError
from minibox.image.layer.attributes import is_of_images
from minibox.image.layer.owners import CAPABILITY, without_namespace
from minibox.linux.listing import RECORD, record_of
from minibox.linux.small_files import read_small_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from minibox.build.context.tree import Tree

#: mode with the kind, uid, gid, digest of the content or sha256 of a link's target, the beginning of sha256 of the attributes
FINGERPRINT = struct.Struct("=III32s16s")
NO_CONTENT, NO_ATTRIBUTES = bytes(32), bytes(16)
CHUNK_BYTES = 1 << 20
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
ATTEMPTS = 3


class Reader:
    """Reads the fingerprints of a tree's files.

    Args:
        keeps_owner: the owner counts. It doesn't for a context, whose files belong to root in the image.
    """

    def __init__(self, tree: Tree, *, keeps_owner: bool) -> None:
        self._tree = tree
        self._keeps_owner = keeps_owner
        self._is_stopped = False

    def stop(self) -> None:
        """Have all threads that read a file give up."""
        self._is_stopped = True

    def read(self, path: str, record: bytes) -> tuple[bytes, bytes]:
        """Read a file; return its record at that moment, and its fingerprint.

        Args:
            record: what the file was when its directory was read.

        Raises:
            BuildError: it can't be read, or others write to it all the time.
        """
        for _ in range(ATTEMPTS):
            fd = self._tree.open(path, READ if stat.S_ISREG(mode_of(record)) else LOOK)
            try:
                before = record_of(os.fstat(fd))
                if stat.S_IFMT(mode_of(before)) == stat.S_IFMT(mode_of(record)):
                    found = self._read(fd, before)
                    if record_of(os.fstat(fd)) == before:
                        return before, found
                record = before
            except OSError as error:
                raise self._tree.refusal("read", path, error) from error
            finally:
                os.close(fd)
        raise BuildError(f"{ascii(path)} in {self._tree.what} is being written to", "build again when it is finished")

    def read_small(self, directory: str, names: Sequence[str]) -> Iterator[tuple[bytes, bytes, bytes] | None]:
        """Read files of a directory; yield the record, the fingerprint and the content of each, None where only `read` can.

        Raises:
            BuildError: the directory can't be opened.
        """
        fd = self._tree.open(directory, READ_DIRECTORY)
        try:
            for found in read_small_files(fd, names):
                if found is None:
                    yield None
                    continue
                record, content = found
                size = len(content)
                if content and (content[0] or content != bytes(size)):
                    digest = hashlib.sha256(b"%d\0%d\0%b" % (size, 0, content)).digest()
                else:
                    digest = hashlib.sha256(b"%d\0" % size).digest()
                owner = RECORD.unpack(record)[6:8] if self._keeps_owner else (0, 0)
                yield record, FINGERPRINT.pack(mode_of(record), *owner, digest, NO_ATTRIBUTES), content
        finally:
            os.close(fd)

    def _read(self, fd: int, record: bytes) -> bytes:
        mode, content, attributes = mode_of(record), NO_CONTENT, NO_ATTRIBUTES
        if stat.S_ISREG(mode):
            content, attributes = self._digest(fd, size_of(record)), _attributes(fd)
        elif stat.S_ISLNK(mode):
            content = hashlib.sha256(os.fsencode(os.readlink("", dir_fd=fd))).digest()
        elif stat.S_ISDIR(mode):
            attributes = _attributes(f"/proc/self/fd/{fd}")
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            content = hashlib.sha256(b"%d" % RECORD.unpack(record)[-1]).digest()
        uid, gid = RECORD.unpack(record)[6:8] if self._keeps_owner else (0, 0)
        return FINGERPRINT.pack(mode, uid, gid, content, attributes)

    def _digest(self, fd: int, size: int) -> bytes:
        """Return a digest of an open file's content. Blocks of zeros are left out, and holes aren't even read."""
        digest, at = hashlib.sha256(b"%d\0" % size), 0
        while at < size and not self._is_stopped:
            chunk = _read(fd, min(CHUNK_BYTES, size - at), at)
            if not chunk:
                break  # it was cut meanwhile, which the caller sees
            if chunk[0] == 0 and chunk == bytes(len(chunk)):
                at = _next_data(fd, at + CHUNK_BYTES, size)
                continue
            digest.update(b"%d\0" % at)
            digest.update(chunk)
            at += CHUNK_BYTES
        return digest.digest()


def _read(fd: int, size: int, at: int) -> bytes:
    chunk = os.pread(fd, size, at)
    while len(chunk) < size and (more := os.pread(fd, size - len(chunk), at + len(chunk))):
        chunk += more
    return chunk


def _next_data(fd: int, at: int, size: int) -> int:
    """Return where the block with the next data of a file begins."""
    try:
        return max(at, os.lseek(fd, at, os.SEEK_DATA) // CHUNK_BYTES * CHUNK_BYTES)
    except OSError as error:
        if error.errno == ENXIO:  # there is none
            return size
        return at  # the file system doesn't know


def _attributes(file: int | str) -> bytes:
    """Return a digest of those attributes that an image may have; zeros if there are none."""
    try:
        names = [name for name in os.listxattr(file) if is_of_images(os.fsencode(name))]
    except OSError:
        return NO_ATTRIBUTES  # the file system has none
    if not names:
        return NO_ATTRIBUTES
    digest = hashlib.sha256()
    for name in sorted(names):
        value = os.getxattr(file, name)
        value = without_namespace(value) if name == CAPABILITY else value
        digest.update(b"%s\0%d\0%s" % (os.fsencode(name), len(value), value))
    return digest.digest()[: len(NO_ATTRIBUTES)]
