"""Make images from tars, like ``docker import``, with one layer or several."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO

from minibox.errors import InvalidReference, StoreError, UsageError, trying
from minibox.image.layer.compression import MAGIC_BYTES, READ_BYTES, Pump, Readable, compression_of, open_decompressed
from minibox.image.layer.tar import TarReader
from minibox.image.layer.unpack import LayerSource
from minibox.image.layout.image import ResolvedImage
from minibox.image.layout.layout import Descriptor, Layout
from minibox.image.layout.manifest import MEDIA_TYPE_CONFIG, MEDIA_TYPE_LAYER, MEDIA_TYPE_MANIFEST, chain_ids
from minibox.image.platform import Platform, host_platform
from minibox.image.reference import parse

Unpack = Callable[[Sequence[LayerSource]], None]
TarSource = str | os.PathLike[str] | Readable

# The compressions that OCI allows for a layer. Tars with another one are stored uncompressed.
LAYER_SUFFIXES = {"": "", "gzip": "+gzip", "zstd": "+zstd"}
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def import_tar(
    layout: Layout, source: TarSource, reference: str, config: dict[str, Any] | None = None
) -> ResolvedImage:
    """Make an image of one layer from a root file system's tar, and name it ``reference``.

    Args:
        source: path or file; plain, or compressed by gzip, zstd, bzip2 or xz.
        config: the execution part of the image config: ``Env``, ``Cmd``, ``Entrypoint``,
            ``WorkingDir``, ``User``, ``Labels`` ... (OCI image-spec, config.md).

    Raises:
        InvalidReference: ``reference`` is malformed or has a digest.
        StoreError: ``source`` can't be read, is a damaged tar, or the disk is full.
    """
    return add_image(layout, reference, [source], config)


def add_image(
    layout: Layout,
    reference: str,
    layers: Iterable[TarSource],
    config: dict[str, Any] | None = None,
    *,
    created: str | None = None,
    message: str = "",
    platform: Platform | None = None,
    unpack: Unpack | None = None,
) -> ResolvedImage:
    """Make an image of ``layers``, bottom first, and name it ``reference``; see `import_tar`.

    The same layers and config give the same digest: a time is stored only if you pass ``created``.

    Args:
        reference: "" for no name.
        created: the time of making, in RFC 3339.
        message: a comment for the history.
        platform: the platform that it is for; None for this machine's.
        unpack: called with the layers before the image gets its name.
    """
    name = parse(reference) if reference else None
    if name is not None and name.digest:
        raise InvalidReference(f"invalid reference {ascii(reference)}: a new image can't be given a digest")
    with layout.adding():
        added = [_add_layer(layout, source) for source in layers]
        if not added:
            raise UsageError(f"image {reference!r} would have no layers")
        diff_ids = [diff_id for _, diff_id in added]
        chain = chain_ids(diff_ids)
        if unpack is not None:
            blobs = [layout.blob_path(descriptor["digest"]) for descriptor, _ in added]
            unpack([LayerSource(*each) for each in zip(blobs, diff_ids, chain, strict=True)])
        image_config: dict[str, Any] = {
            **(platform or host_platform()).document(),
            "config": {"Env": [DEFAULT_PATH], **(config or {})},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        step = {key: text for key, text in (("created", created), ("comment", message)) if text}
        image_config.update({"created": created} if created else {})
        image_config["history"] = [step] * len(added)  # podman build needs a step for each layer
        config_descriptor = layout.write_json(image_config, MEDIA_TYPE_CONFIG)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE_MANIFEST,
            "config": config_descriptor,
            "layers": [descriptor for descriptor, _ in added],
        }
        descriptor = layout.write_json(manifest, MEDIA_TYPE_MANIFEST)
        descriptor = {**descriptor, "platform": (platform or host_platform()).document()}
        if name is not None:
            layout.set_name(str(name), descriptor)
        else:
            layout.change(lambda items: [*items, descriptor])
    return ResolvedImage(
        reference=str(name) if name is not None else "",
        digest=descriptor["digest"],
        config=image_config,
        chain_ids=chain,
        config_digest=config_descriptor["digest"],
    )


def _add_layer(layout: Layout, source: TarSource) -> tuple[Descriptor, str]:
    """Store a tar as a blob; return its descriptor and its diff ID."""
    with ExitStack() as stack:
        if isinstance(source, (str, os.PathLike)):
            what = os.fspath(source)
            with trying(StoreError, f"read {what}"):
                file: Readable = stack.enter_context(open(source, "rb", buffering=0))
        else:
            file, what = source, "the tar"
        blob = stack.enter_context(layout.new_blob())
        try:
            return _keep_tar(layout, _Named(file, what), blob)
        except StoreError as error:
            raise StoreError(f"import {what}: {error}", error.hint) from error


def _keep_tar(layout: Layout, file: Readable, blob: BinaryIO) -> tuple[Descriptor, str]:
    start = _Started(file)
    if start.compression not in LAYER_SUFFIXES:
        start = _Started(open_decompressed(start))
    stored = _Copied(start, blob)
    with Pump(stored) as pump:
        reader = TarReader(pump.read_chunk)
        while reader.next() is not None:  # refuses a broken layer
            pass
        diff_id = pump.digest()
    if not stored.size_bytes:  # for example, the command before the pipe failed
        raise StoreError("not a valid tar archive: it is empty", "even an empty archive has an end marker")
    digest = "sha256:" + stored.hasher.hexdigest()
    layout.keep_blob(blob, digest)
    media_type = MEDIA_TYPE_LAYER + LAYER_SUFFIXES[start.compression]
    return {"mediaType": media_type, "digest": digest, "size": stored.size_bytes}, diff_id


class _Named:
    """A file whose errors name it, so that they aren't taken for errors of the blob that we write."""

    def __init__(self, file: Readable, name: str) -> None:
        self._file, self._name = file, name

    def read(self, size: int, /) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._name) from error


class _Started:
    """A file whose compression is known before it is read."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._start = b""
        while len(self._start) < MAGIC_BYTES and (data := file.read(READ_BYTES)):
            self._start += data
        self.compression = compression_of(self._start)

    def read(self, size: int, /) -> bytes:
        if self._start:
            data, self._start = self._start[:size], self._start[size:]
            return data
        return self._file.read(size)


class _Copied:
    """A file that is copied while we read it, and whose digest is computed."""

    def __init__(self, file: Readable, copy: BinaryIO) -> None:
        self._file = file
        self._copy = copy
        self.hasher = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self.hasher.update(data)
        self.size_bytes += len(data)
        self._copy.write(data)
        return data
