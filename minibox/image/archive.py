"""The files of an image archive, by name: read from a tar as it streams, or from a directory.

Each becomes an unfinished blob of the store, its digest taken on the way; what the images of the archive turn out
to need is kept, and all else is gone at the end. So an archive may come by a pipe and have its manifest last, as
Docker's have, and one that is damaged leaves the store as it was.
"""

from __future__ import annotations

import json
import os
import posixpath
from contextlib import ExitStack

from minibox.base.files import READ, FileTooLarge, open_regular, read_file
from minibox.errors import StoreError, kernel_says
from minibox.image import tar
from minibox.image.compression import MAGIC_BYTES, READ_BYTES, compress, compression_of, open_decompressed
from minibox.image.layout import INDEX_BYTES_MAX, JSON_BLOB_BYTES_MAX, disk_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Any

    from minibox.image.compression import Readable
    from minibox.image.layout import Layout

#: More files than this is no archive of images; `archive_save` writes no more either.
FILES_MAX = 100_000
LINKS_MAX = 8
INDEXES = ("index.json", "manifest.json")
DEPTH_MAX = 3
#: Docker's of before 1.10, for each layer; nobody reads them any more.
IGNORED = ("VERSION", "json", "repositories")
ROOT_DIRECTORIES = frozenset((b"bin", b"etc", b"lib", b"proc", b"sbin", b"usr", b"var"))


class StagedFile:
    """A file of an archive.

    Attributes:
        path: where it is until it is kept.
        digest: of its content.
        compression: see `compression_of`.
    """

    def __init__(self, path: str, digest: str, size_bytes: int, start: bytes) -> None:
        self.path = path
        self.digest = digest
        self.size_bytes = size_bytes
        self.compression = compression_of(start)


class ArchiveFiles:
    """The files of an archive; for use in a ``with`` statement, at whose end all that was not kept is gone."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._files: dict[str, StagedFile] = {}
        self._links: dict[str, str] = {}
        self._stack = ExitStack()
        self._directory, self._count = "", 0

    def __enter__(self) -> ArchiveFiles:
        self._directory = self._stack.enter_context(self._layout.staging())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read_tar(self, file: Readable) -> None:
        """Take all files of a tar, which may be compressed.

        Raises:
            StoreError: it is no sound tar, a blob has another digest than its name says, or the disk is full.
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
        """Take all files of a directory; no symlink is followed.

        Raises:
            StoreError: see `read_tar`.
        """
        for parent, directories, names in os.walk(path):
            inside = os.path.relpath(parent, path)
            if inside.count("/") >= DEPTH_MAX:
                directories.clear()
            for name in sorted(names):
                full = os.path.join(parent, name)
                try:
                    look = os.open(full, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
                    try:
                        fd = open_regular(look, READ, full)
                    finally:
                        os.close(look)
                except OSError as error:
                    raise StoreError(f"read {full}: {kernel_says(error)}") from error
                with open(fd, "rb", buffering=0) as file:
                    self._add(
                        posixpath.normpath(posixpath.join(inside, name)), iter(lambda: file.read(READ_BYTES), b"")
                    )

    def __contains__(self, name: str) -> bool:
        return self._resolve(name) in self._files

    def file(self, name: str) -> StagedFile:
        """A file by its name, or by that of a link to it.

        Raises:
            StoreError: it isn't in the archive.
        """
        try:
            return self._files[self._resolve(name)]
        except KeyError:
            raise StoreError(f"the archive lacks the file {ascii(name)}") from None

    def json(self, name: str) -> Any:
        """What a file has as JSON.

        Raises:
            StoreError: it isn't there, is too large, or is no JSON.
        """
        try:
            return json.loads(self.data(name))
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{ascii(name)} in the archive is no JSON: {error}") from error

    def data(self, name: str) -> bytes:
        """The content of a small file."""
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
            raise StoreError(f"more than {FILES_MAX} files: it is no archive of images")
        path, start = f"{self._directory}/{self._count}", b""
        self._count += 1
        try:
            with open(path, "xb") as blob, compress(blob, "") as hashed:  # takes the digest beside the reading
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
            "it is no archive of images but of a root file system", "make an image of it: minibox import FILE NAME"
        )
