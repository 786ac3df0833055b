"""Check what a registry sends: manifests, indexes and configs.

The bytes stay unchanged, because their digest identifies the image. Nothing here touches the disk.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from minibox.errors import RegistryError, StoreError
from minibox.image.layout.layout import Descriptor
from minibox.image.layout.manifest import INDEX_TYPES, MANIFEST_TYPES, MEDIA_TYPE_LAYER, diff_ids
from minibox.image.reference import is_digest
from minibox.record import record

MANIFEST_BYTES_MAX = 4 << 20  # the size that distribution-spec asks every registry to accept
CONFIG_BYTES_MAX = 8 << 20
LAYERS_MAX = 4096
SIZE_MAX = 1 << 50
SCHEMA_1_TYPES = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
ACCEPT = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))
LAYER_PREFIXES = (
    MEDIA_TYPE_LAYER,
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)


@record
class Document:
    """A manifest or an index as it was sent."""

    data: bytes
    value: dict[str, Any]
    media_type: str
    digest: str

    @property
    def is_index(self) -> bool:
        """Whether it lists images instead of being one."""
        return self.media_type in INDEX_TYPES

    @property
    def descriptor(self) -> Descriptor:
        """Its descriptor (OCI image-spec, descriptor.md)."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}


def digest_of(data: bytes) -> str:
    """Return ``sha256:<hex>`` of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def read_document(data: bytes, content_type: str, what: str) -> Document:
    """Read and check a manifest or index.

    Args:
        content_type: the Content-Type header, or its descriptor's media type.
        what: names it in errors: ``manifest app:1 from localhost:5000``.

    Raises:
        RegistryError: it is neither, or doesn't match ``content_type``.
    """
    value = _object(data, what)
    announced = content_type.partition(";")[0].strip().lower()
    if announced in SCHEMA_1_TYPES or value.get("schemaVersion") == 1:
        raise RegistryError(f"{what} is in Docker's schema 1, which nobody writes any more", "push the image again")
    own = value.get("mediaType")
    known = (*MANIFEST_TYPES, *INDEX_TYPES)
    if own is not None and announced in known and own != announced:
        raise RegistryError(f"{what} says that it is {ascii(own)}, but is announced as {announced}")
    media_type = own if own is not None else announced
    if media_type not in known:
        raise RegistryError(f"{what} has the media type {ascii(media_type)}: it is not an image")
    document = Document(data, value, media_type, digest_of(data))
    # If some programs take it for a manifest and others for an index, it is ambiguous (CVE-2021-41190).
    if "layers" in value and "manifests" in value or ("manifests" in value) != document.is_index:
        raise RegistryError(f"{what} is announced as {media_type}, but has members of another type")
    if document.is_index:
        _descriptors(value, "manifests", what)
    else:
        layers = _descriptors(value, "layers", what)
        _check_descriptor(value.get("config"), f"the config in {what}")
        for layer in layers:
            _check_layer_type(layer["mediaType"], what)
    return document


def read_config(data: bytes, layers: int, what: str) -> dict[str, Any]:
    """Read and check an image config, for a manifest with so many ``layers``.

    Raises:
        RegistryError: it is not a valid config.
    """
    config = _object(data, what)
    try:
        ids = diff_ids(config)
    except StoreError as error:
        raise RegistryError(f"{what}: {error}", error.hint) from error
    if len(ids) != layers:
        raise RegistryError(f"{what} has {len(ids)} diff IDs, but its manifest has {layers} layers")
    return config


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RegistryError(f"{what} is not a JSON object")
    return value


def _descriptors(value: dict[str, Any], key: str, what: str) -> list[Descriptor]:
    items = value.get(key)
    if not isinstance(items, list):
        raise RegistryError(f"{what} is damaged: {key!r} is not a list of descriptors")
    if len(items) > LAYERS_MAX:
        raise RegistryError(f"{what} has {len(items)} {key}, but only {LAYERS_MAX} are allowed")
    for item in items:
        _check_descriptor(item, f"an item of {key!r} in {what}")
    return items


def _check_descriptor(item: Any, what: str) -> None:
    size = item.get("size") if isinstance(item, dict) else None
    if (
        not isinstance(item, dict)
        or not isinstance(item.get("mediaType"), str)
        or not isinstance(digest := item.get("digest"), str)
        or not isinstance(size, int)
        or isinstance(size, bool)
    ):
        raise RegistryError(f"{what} is damaged: it is not a descriptor")
    if not is_digest(digest):
        raise RegistryError(f"{what} is damaged: {ascii(digest)} is not a sha256 digest")
    if not 0 <= size <= SIZE_MAX:
        raise RegistryError(f"{what} is damaged: {size} is not a size")


def _check_layer_type(media_type: str, what: str) -> None:
    if not media_type.startswith(LAYER_PREFIXES) or media_type.endswith("+encrypted"):
        raise RegistryError(
            f"{what} has a layer of the media type {ascii(media_type)}, which can't be unpacked",
            "it is an artifact, not an image that you can run",
        )
