"""The files of an image archive, by name: read from a tar as it streams, or from a directory.

Each file becomes an unfinished blob of the store, and its digest is computed on the way. At the end we keep the blobs
that the images need, and remove all others. So an archive may come through a pipe, and its manifest may come last, as
in Docker's archives. A damaged archive leaves the store as it was.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from minibox.base.files import READ, FileTooLarge, closing, open_regular, read_file
from minibox.errors import StoreError, trying
from minibox.image.layer import tar
from minibox.image.layer.compression import (
    MAGIC_BYTES,
    READ_BYTES,
    Readable,
    compress,
    compression_of,
    open_decompressed,
)
from minibox.image.layout.layout import INDEX_BYTES_MAX, JSON_BLOB_BYTES_MAX, Layout, disk_error

#: An archive with more files isn't an archive of images; `save` doesn't write more either.
FILES_MAX = 100_000
LINKS_MAX = 8
INDEXES = ("index.json", "manifest.json")
DEPTH_MAX = 3
#: Written by Docker before 1.10 for each layer; nobody reads them any more.
IGNORED = ("VERSION", "json", "repositories")
ROOT_DIRECTORIES = frozenset((b"bin", b"etc", b"lib", b"proc", b"sbin", b"usr", b"var"))


class StagedFile:
    """A file of an archive.

    Attributes:
        path: where it is until it is kept.
        digest: the digest of its content.
        compression: see `compression_of`.
    """

    def __init__(self, path: str, digest: str, size_bytes: int, start: bytes) -> None:
        self.path = path
        self.digest = digest
        self.size_bytes = size_bytes
        self.compression = compression_of(start)


class ArchiveFiles:
    """The files of an archive. Use it in a ``with`` statement, which removes the files that weren't kept at its end."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._files: dict[str, StagedFile] = {}
        self._links: dict[str, str] = {}
        self._stack = ExitStack()
        self._directory, self._count = "", 0

    def __enter__(self) -> ArchiveFiles:
        self._directory = self._stack.enter_context(self._layout.staging())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read_tar(self, file: Readable) -> None:
        """Read all files of a tar, which may be compressed.

        Raises:
            StoreError: the tar is damaged, a blob's digest differs from its name, or the disk is full.
        """
        reader = tar.TarReader(open_decompressed(file).read_chunk)
        while (entry := reader.next()) is not None:
            name = _normal(entry.name)
            if entry.kind == tar.REGULAR and entry.sparse is None:
                self._add(name, reader.content())
            elif entry.kind in (tar.HARD_LINK, tar.SYMLINK):
                target = _normal(entry.link)
                above = posixpath.dirname(name) if entry.kind == tar.SYMLINK else ""
                self._links[name] = posixpath.normpath(posixpath.join(above, target))
            _refuse_root_file_system(entry.name)

    def read_directory(self, path: str) -> None:
        """Read all files of a directory. Symlinks are not followed.

        Raises:
            StoreError: like `read_tar`.
        """
        for parent, directories, names in os.walk(path):
            inside = os.path.relpath(parent, path)
            if inside.count("/") >= DEPTH_MAX:
                directories.clear()
            for name in sorted(names):
                full = os.path.join(parent, name)
                with trying(StoreError, f"read {full}"):
                    with closing(os.open(full, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)) as look:
                        fd = open_regular(look, READ, full)
                with open(fd, "rb", buffering=0) as file:
                    self._add(
                        posixpath.normpath(posixpath.join(inside, name)), iter(lambda: file.read(READ_BYTES), b"")
                    )

    def __contains__(self, name: str) -> bool:
        return self._resolve(name) in self._files

    def file(self, name: str) -> StagedFile:
        """Return a file by its name, or by the name of a link to it.

        Raises:
            StoreError: it isn't in the archive.
        """
        try:
            return self._files[self._resolve(name)]
        except KeyError:
            raise StoreError(f"the archive lacks the file {ascii(name)}") from None

    def json(self, name: str) -> Any:
        """Decode a JSON file.

        Raises:
            StoreError: it is missing, too large, or not JSON.
        """
        try:
            return json.loads(self.data(name))
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{ascii(name)} in the archive is not JSON: {error}") from error

    def data(self, name: str) -> bytes:
        """Return the content of a small file."""
        staged = self.file(name)
        limit = INDEX_BYTES_MAX if name in INDEXES else JSON_BLOB_BYTES_MAX
        try:
            return read_file(staged.path, limit)
        except FileTooLarge:
            raise StoreError(f"{ascii(name)} in the archive is larger than {limit} bytes") from None
        except OSError as error:
            raise disk_error(f"read {staged.path}", error) from error

    def keep(self, files: Iterable[StagedFile]) -> None:
        """Put files into the store as blobs."""
        for digest, staged in {staged.digest: staged for staged in files}.items():
            try:
                with open(staged.path, "r+b") as file:
                    self._layout.keep_blob(file, digest)
            except OSError as error:
                raise disk_error(f"keep {staged.path}", error) from error

    def _resolve(self, name: str) -> str:
        for _ in range(LINKS_MAX):
            if name in self._files or name not in self._links:
                break
            name = self._links[name]
        return name

    def _add(self, name: str, pieces: Iterator[memoryview] | Iterator[bytes]) -> None:
        if name.count("/") > DEPTH_MAX or posixpath.basename(name) in IGNORED:
            return
        if self._count >= FILES_MAX:
            raise StoreError(f"more than {FILES_MAX} files: it is not an archive of images")
        path, start = f"{self._directory}/{self._count}", b""
        self._count += 1
        try:
            with open(path, "xb") as blob, compress(blob, "") as hashed:  # computes the digest while we read
                for piece in pieces:
                    if len(start) < MAGIC_BYTES:
                        start += bytes(piece[:MAGIC_BYTES])
                    hashed.write(piece)
        except OSError as error:
            raise disk_error(f"write {path}", error) from error
        if name.startswith("blobs/sha256/") and hashed.digest != f"sha256:{posixpath.basename(name)}":
            raise StoreError(f"{ascii(name)} in the archive is damaged: its content has the digest {hashed.digest}")
        self._files[name] = StagedFile(path, hashed.digest, hashed.size_bytes, start)


def _normal(name: bytes) -> str:
    return posixpath.normpath(name.decode("utf-8", "surrogateescape")).lstrip("/")


def _refuse_root_file_system(name: bytes) -> None:
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if parts and parts[0] in ROOT_DIRECTORIES:
        raise StoreError(
            "it is an archive of a root file system, not of images", "make an image of it: minibox import FILE NAME"
        )
