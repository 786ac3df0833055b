"""Save images to archives in modern Docker's form: an OCI image layout that also contains Docker's manifest.json.

``docker load``, ``podman load``, ``skopeo`` and ``ctr images import`` can all read the same file. Layers stay
compressed, which all of them accept. The same images give the same bytes: times are 0.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from typing import Any

from minibox.base.files import AutoClose, open_to_read
from minibox.errors import StoreError, kernel_says
from minibox.image.archive.load import NAME_OF_CONTAINERD
from minibox.image.archive.reader import FILES_MAX
from minibox.image.layer.compression import READ_BYTES, Writable
from minibox.image.layout.image import ResolvedImage
from minibox.image.layout.layout import LAYOUT_FILE, MEDIA_TYPE_INDEX, REF_NAME, Descriptor, Layout
from minibox.image.layout.manifest import MEDIA_TYPE_MANIFEST, layer_descriptors
from minibox.image.platform import platform_of
from minibox.image.reference import parse
from minibox.record import record

DOCKER_ARCHIVE, OCI_ARCHIVE = "docker-archive", "oci-archive"
FORMATS = (DOCKER_ARCHIVE, OCI_ARCHIVE)
BLOCK = tarfile.BLOCKSIZE
RECORD = tarfile.RECORDSIZE


@record
class Saved:
    """An image to save.

    Attributes:
        names: its full names; none if the user named it by its id.
    """

    image: ResolvedImage
    names: tuple[str, ...]


def save(layout: Layout, images: Sequence[Saved], out: Writable, form: str = DOCKER_ARCHIVE) -> None:
    """Write an archive of ``images``.

    Args:
        form: ``docker-archive``, or ``oci-archive``, which leaves out Docker's files.

    Raises:
        StoreError: a blob is missing or damaged. What was written so far isn't a complete archive.
        OSError: ``out`` can't be written.
    """
    writer = _Writer(out)
    if 3 * len(images) > FILES_MAX:
        raise StoreError(f"save {len(images)} images in one archive: it would have too many files to load it again",
                         f"an archive has at most {FILES_MAX} files: save the images in several")  # fmt: skip
    entries: list[Descriptor] = []
    docker: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    written: set[str] = set()
    writer.directory("blobs")
    writer.directory("blobs/sha256")
    for saved in images:
        image = saved.image
        data = layout.read_blob(image.digest)
        layers = [layer for layer, _ in layer_descriptors(layout, image.digest, image.config)]
        for digest in (*(layer["digest"] for layer in layers), image.config_digest, image.digest):
            if digest not in written:
                written.add(digest)
                writer.blob(layout, digest)
        entries += _index_entries(saved, data)
        names = [name for name in map(parse, saved.names) if name.tag]
        docker.append(
            {
                "Config": _blob_name(image.config_digest),
                "RepoTags": [name.familiar for name in names] or None,
                "Layers": [_blob_name(layer["digest"]) for layer in layers],
            }
        )
        for name in names:
            if image.chain_ids:
                repositories.setdefault(name.familiar.rpartition(":")[0], {})[name.tag] = image.chain_ids[-1][7:]
    writer.json("index.json", {"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": entries})
    if form == DOCKER_ARCHIVE:
        writer.json("manifest.json", docker)
    writer.data("oci-layout", LAYOUT_FILE)
    if form == DOCKER_ARCHIVE and repositories:
        writer.json("repositories", repositories)
    writer.end()


def save_index(layout: Layout, index: Descriptor, names: Sequence[str], out: Writable) -> None:
    """Write an OCI archive of an image index with the images of all its platforms.

    Args:
        index: the index's descriptor.
        names: the full names that the archive gives it.

    Raises:
        StoreError: a blob is missing or damaged. What was written so far isn't a complete archive.
        OSError: ``out`` can't be written.
    """
    writer = _Writer(out)
    written: dict[str, None] = {}
    for item in layout.read_json(index["digest"])["manifests"]:
        manifest = layout.read_json(item["digest"])
        written.update(dict.fromkeys(each["digest"] for each in (*manifest["layers"], manifest["config"], item)))
    writer.directory("blobs")
    writer.directory("blobs/sha256")
    for digest in (*written, index["digest"]):
        writer.blob(layout, digest)
    entry = {name: index[name] for name in ("mediaType", "digest", "size")}
    manifests = _named(entry, names)
    writer.json("index.json", {"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": manifests})
    writer.data("oci-layout", LAYOUT_FILE)
    writer.end()


def _index_entries(saved: Saved, manifest: bytes) -> list[Descriptor]:
    entry: Descriptor = {
        "mediaType": json.loads(manifest).get("mediaType") or MEDIA_TYPE_MANIFEST,
        "digest": saved.image.digest,
        "size": len(manifest),
        "platform": platform_of(saved.image.config).document(),
    }
    return _named(entry, saved.names)


def _named(entry: Descriptor, names: Sequence[str]) -> list[Descriptor]:
    """Return an entry for each name; one without if there is none."""
    # The full name in both: some tools read only the second, and use it as the image's name.
    return [{**entry, "annotations": {NAME_OF_CONTAINERD: name, REF_NAME: name}} for name in names] or [entry]


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest[7:]}"


class _Blob(AutoClose):
    """A blob of the store, open for reading; use it in a ``with`` statement."""

    def __init__(self, layout: Layout, digest: str) -> None:
        self._digest = digest
        try:
            self._file = open(open_to_read(layout.blob_path(digest)), "rb", buffering=0)
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise self._unread(error) from error

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:  # so that it isn't taken for an error of writing the archive
            raise self._unread(error) from error

    def _unread(self, error: OSError) -> StoreError:
        return StoreError(f"read blob {self._digest}: {kernel_says(error)}", "pull or load the image again")

    def close(self) -> None:
        self._file.close()


class _Writer:
    """Writes a tar that depends only on names and contents."""

    def __init__(self, out: Writable) -> None:
        self._out = out
        self._written = 0

    def directory(self, name: str) -> None:
        header = tarfile.TarInfo(name)
        header.type, header.mode = tarfile.DIRTYPE, 0o755
        self._write(header.tobuf(tarfile.USTAR_FORMAT))

    def json(self, name: str, value: Any) -> None:
        self.data(name, json.dumps(value, separators=(",", ":")).encode())

    def data(self, name: str, data: bytes) -> None:
        self._file(name, len(data), io.BytesIO(data))

    def blob(self, layout: Layout, digest: str) -> None:
        """Copy a blob of the store, and verify its digest on the way."""
        hasher = hashlib.sha256()
        with _Blob(layout, digest) as blob:
            self._file(_blob_name(digest), blob.size, blob, hasher)
        if "sha256:" + hasher.hexdigest() != digest:
            raise StoreError(
                f"blob {digest} is damaged: its content has another digest", "pull or load the image again"
            )

    def end(self) -> None:
        self._write(bytes(2 * BLOCK))
        self._write(bytes(-self._written % RECORD))

    def _file(self, name: str, size: int, file: Any, hasher: Any = None) -> None:
        header = tarfile.TarInfo(name)
        header.size, header.mode = size, 0o644
        self._write(header.tobuf(tarfile.PAX_FORMAT))
        left = size
        while left and (piece := file.read(min(READ_BYTES, left))):
            if hasher is not None:
                hasher.update(piece)
            self._write(piece)
            left -= len(piece)
        if left:
            raise StoreError(f"{name} became shorter while it was read")
        self._write(bytes(-size % BLOCK))

    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self._written += len(data)
