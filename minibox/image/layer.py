"""Unpacked layers: root/layers/<chain id hex>/diff.

A layer is unpacked beside its place and renamed into it: a directory that is there is whole. One
lock is held for all unpacking, so two processes never unpack the same layer, and whatever
unfinished directory is seen under the lock was left by a killed process.
"""

from __future__ import annotations

import hashlib
import os
import tarfile

from minibox.errors import MiniboxError, StoreError
from minibox.image.compression import open_decompressed
from minibox.image.extract import Extractor
from minibox.image.layout import disk_error, locked
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import IO, BinaryIO

    from minibox.image.extract import Form, OwnerPolicy

CHUNK_BYTES = 1 << 20
UNFINISHED = "unfinished-"


@record
class LayerSource:
    """A layer that waits to be unpacked.

    Attributes:
        blob_path: the tar, plain or compressed.
        diff_id: digest of the plain tar, verified while unpacking.
        chain_id: of this layer with all below it; names the directory.
    """

    blob_path: str
    diff_id: str
    chain_id: str


def unpack_layer(root: str, source: LayerSource, owner_policy: OwnerPolicy = "auto") -> str:
    """Unpack ``source`` unless that was done before; the ``diff`` directory.

    Raises:
        StoreError: the blob is missing or damaged, an entry would leave the directory, the disk is full.
    """
    layers_path = f"{root}/layers"
    layer_path = f"{layers_path}/{source.chain_id[7:]}"
    diff_path = f"{layer_path}/diff"
    try:
        # Layers hold set-user-ID programs: nobody else on the host may reach into them.
        os.makedirs(layers_path, mode=0o700, exist_ok=True)
        with locked(f"{root}/layers.lock"):
            if os.access(diff_path, os.F_OK):
                return diff_path
            _collect_unfinished(layers_path)
            unfinished = f"{layers_path}/{UNFINISHED}{source.chain_id[7:]}"
            os.makedirs(f"{unfinished}/diff")
            os.chmod(f"{unfinished}/diff", 0o755)  # not left to the umask: it is the container's root directory
            try:
                with open(source.blob_path, "rb") as blob:
                    unpack(blob, f"{unfinished}/diff", diff_id=source.diff_id, owner_policy=owner_policy)
                os.rename(unfinished, layer_path)
            except BaseException:
                _collect_unfinished(layers_path)
                raise
            return diff_path
    except OSError as error:
        raise disk_error(f"unpack layer {source.diff_id}", error) from error


def unpack_layers(
    root: str,
    sources: Sequence[LayerSource],
    *,
    owner_policy: OwnerPolicy = "auto",
    on_progress: Callable[[LayerSource], None] | None = None,
) -> list[str]:
    """Unpack the layers of an image, bottom first, those that are not yet; their ``diff`` directories.

    Args:
        on_progress: called with each layer that is in its place.

    Raises:
        StoreError: see `unpack_layer`. The layers below the one that failed are in their places.
    """
    paths = []
    for source in sources:
        paths.append(unpack_layer(root, source, owner_policy))
        if on_progress:
            on_progress(source)
    return paths


def unpack(
    blob: BinaryIO,
    directory: str,
    *,
    diff_id: str | None = None,
    owner_policy: OwnerPolicy = "auto",
    form: Form = "overlay",
) -> None:
    """Unpack a layer's tar into ``directory``.

    Args:
        blob: the tar, plain or compressed by gzip, zstd, bzip2 or xz.
        diff_id: what the plain tar's digest must be.
        owner_policy: ``keep`` the owners in the tar, ``ignore`` them, or ``auto``: keep when we are
            root (in a user namespace too). See `extract.Extractor`.
        form: ``overlay`` fills an empty directory, whiteouts in overlayfs's form; ``apply`` changes a
            directory that has all layers below, whiteouts remove.

    Raises:
        StoreError: see `unpack_layer`.
    """
    stream = HashingReader(open_decompressed(blob))
    what = f"unpack layer {diff_id}" if diff_id else "unpack tar"
    try:
        with Extractor(directory, owner_policy, form) as extractor:
            for member, content in read_tar(stream):
                extractor.extract(member, content)
            extractor.finish()
    except MiniboxError as error:
        raise StoreError(f"{what}: {error}", error.hint) from error
    except OSError as error:
        raise disk_error(what, error) from error
    if diff_id is not None and stream.digest() != diff_id:
        raise StoreError(f"{what}: the content has another digest, {stream.digest()}", "the layer is damaged")


class HashingReader:
    """A readable file that takes the digest of what is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hasher = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hasher.update(data)
        self.size_bytes += len(data)
        return data

    def drain(self) -> None:
        """Read to the end."""
        while self.read(CHUNK_BYTES):
            pass

    def digest(self) -> str:
        """``sha256:<hex>`` of what was read so far."""
        return "sha256:" + self._hasher.hexdigest()


class _StrictHeader(tarfile.TarInfo):
    """`tarfile` takes a broken header in mid-archive for its end; here it is an error."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _StrictHeader:
        try:
            return super().fromtarfile(tar)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def read_tar(stream: HashingReader) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Yield (header, content or None) for each entry of a tar, then read ``stream`` to its end.

    Raises:
        StoreError: it is not a tar, is cut short, or the compressed data under it is damaged.
    """
    try:
        with tarfile.open(  # type: ignore[call-overload]
            fileobj=stream,
            mode="r|",
            bufsize=CHUNK_BYTES,
            tarinfo=_StrictHeader,
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar:
            while (member := tar.next()) is not None:
                yield member, (tar.extractfile(member) if member.isreg() else None)
                tar.members = []  # else every header stays in memory
        stream.drain()
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise StoreError(f"not a sound tar archive: {error}") from error


def _collect_unfinished(layers_path: str) -> None:
    from minibox.storage.removal import remove_tree

    for name in os.listdir(layers_path):
        if name.startswith(UNFINISHED):
            remove_tree(f"{layers_path}/{name}")
