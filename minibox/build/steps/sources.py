"""Where COPY, ADD and mounts take files from: the context, named contexts, other stages, images, archives and URLs."""

from __future__ import annotations

import hashlib
import os
from time import time_ns

from minibox.build.context.context import Context
from minibox.build.context.location import is_tar
from minibox.build.dockerfile import instructions as kinds
from minibox.engine.host.user_namespace import run_inside
from minibox.errors import BuildError, StoreError
from minibox.image.layer.compression import MAGIC_BYTES, compression_of, open_decompressed
from minibox.image.layer.tar import BLOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import BinaryIO

    from minibox.build.context.context import Selection
    from minibox.build.context.selection import Source as FoundSource
    from minibox.build.steps.placing import Destination
    from minibox.build.steps.step import Place
    from minibox.image.layer.compression import Readable

CHUNK_BYTES = 1 << 20


class Sources:
    """What one COPY or ADD copies.

    Attributes:
        keeps_owner: files keep their owners without --chown.
        facts, inputs: for the line's key.
    """

    keeps_owner = False
    facts: Mapping[str, str] = {}
    inputs: Mapping[str, Selection | str] = {}

    def write(self, target: Destination) -> None:
        """Write everything. This may run in another process."""


class FromContext(Sources):
    """Files of a context."""

    def __init__(self, context: Context, line: kinds.Copy | kinds.Add) -> None:
        """Select them, and read what isn't remembered."""
        self._context, self._unpacks = context, isinstance(line, kinds.Add) and line.unpack is not False
        self._selection = context.select(line.sources, exclude=line.exclude, parents=getattr(line, "parents", False))
        self.inputs = {" ".join(line.sources): self._selection} if line.sources else {}

    def write(self, target: Destination) -> None:
        if not self._unpacks:
            target.write(self._context, self._selection)
            return
        for source in self._selection.sources:
            if not source.is_directory and self._unpacked(source, target):
                continue
            target.write_source(self._context, source)

    def _unpacked(self, source: FoundSource, target: Destination) -> bool:
        """Unpack a source of ADD if it is an archive."""
        fd = self._context.open(next(source.selected()))
        with open(fd, "rb", buffering=0) as file:
            return unpack_archive(file, target)


class FromLayers(Sources):
    """Files of a stage or an image. Layers never change, so the digest of what is selected is remembered for good."""

    keeps_owner = True

    def __init__(self, place: Place, chain: tuple[str, ...], what: str, line: kinds.Copy) -> None:
        self._place, self._chain, self._what, self._line = place, chain, what, line
        self.inputs = {f"{what} {' '.join(line.sources)}": self._digest()}

    def _digest(self) -> str:
        from minibox.base.json_text import dumps

        place, line = self._place, self._line
        words = dumps([place.driver, self._chain[-1], line.sources, line.exclude, line.parents], "")
        name = hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()
        note = f"{place.root}/build/selections/{name}"
        try:
            return os.readlink(note)  # the cheapest note on disk: it is never half written
        except OSError:
            pass

        def digest() -> str:
            with self._context() as context:
                return self._select(context).digest

        found: str = run_inside(digest)
        from minibox.base.files import replace_link

        os.makedirs(os.path.dirname(note), 0o700, exist_ok=True)
        replace_link(note, found)
        return found

    def write(self, target: Destination) -> None:
        with self._context() as context:
            target.write(context, self._select(context))

    def _context(self) -> _Mounted:
        return _Mounted(self._place, self._chain, self._what)

    def _select(self, context: Context) -> Selection:
        line = self._line
        return context.select(line.sources, exclude=line.exclude, parents=line.parents)


class _Mounted:
    """A context of a root file system's layers, mounted for a ``with`` block."""

    def __init__(self, place: Place, chain: tuple[str, ...], what: str) -> None:
        from minibox.engine.files.writable_rootfs import readable_layers

        self._mount = readable_layers(place.root, place.driver, chain)
        self._what = what
        self._opened: Context | None = None

    def __enter__(self) -> Context:
        fd = self._mount.__enter__()
        self._opened = Context(f"/proc/self/fd/{fd}", keeps_owner=True, what=self._what)
        return self._opened

    def __exit__(self, *_: object) -> None:
        if self._opened:
            self._opened.close()
        self._mount.__exit__(None, None, None)


class FromTexts(Sources):
    """Only heredocs, which the line writes itself."""


class Downloaded(Sources):
    """Files of ADD that were downloaded to a directory of their own."""

    def __init__(self, files: Sequence[tuple[str, str, str, int | None]], *, unpack: bool) -> None:
        """
        Args:
            files: URL, path, digest, and the time of the last change in seconds, if the server has told.
        """
        self._files, self._unpack = files, unpack
        self.inputs = {url: digest for url, _, digest, _ in files}

    def write(self, target: Destination) -> None:
        for url, path, _, mtime_s in self._files:
            with open(path, "rb", buffering=0) as file:
                if self._unpack and unpack_archive(file, target):
                    continue
                file.seek(0)
                size = os.fstat(file.fileno()).st_size
                content = (memoryview(piece) for piece in iter(lambda: file.read(CHUNK_BYTES), b""))
                mtime_ns = time_ns() if mtime_s is None else mtime_s * 1_000_000_000
                target.write_file(url_name(url), content, size, 0o600, mtime_ns)


class Several(Sources):
    """Sources of different kinds in one ADD."""

    def __init__(self, parts: Sequence[Sources]) -> None:
        self._parts = parts
        self.inputs = {name: each for part in parts for name, each in part.inputs.items()}

    def write(self, target: Destination) -> None:
        for part in self._parts:
            part.write(target)


def url_name(url: str) -> str:
    """Return the file name in a URL.

    Raises:
        BuildError: it has none.
    """
    from urllib.parse import unquote, urlsplit

    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if not name or name in (".", "..") or "\0" in name:
        raise BuildError(f"ADD {url}: the URL has no file name", "write the name at the end of the destination")
    return name


def unpack_archive(file: BinaryIO, target: Destination) -> bool:
    """Unpack a tar, plain or compressed, below the destination; tell whether the file is one."""
    start = file.read(BLOCK)
    file.seek(0)
    if compression_of(start[:MAGIC_BYTES]):
        try:
            start = _first(open_decompressed(file))
        except StoreError:
            return False
        finally:
            file.seek(0)
    if not is_tar(start):
        return False
    target.unpack(file)
    return True


def _first(file: Readable) -> bytes:
    data = b""
    while len(data) < BLOCK and (more := file.read(BLOCK - len(data))):
        data += more
    return data
