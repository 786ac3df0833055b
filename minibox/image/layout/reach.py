"""Find the blobs and layers that a descriptor refers to, to remove or to count them.

It reads leniently: something damaged may still refer to something intact.
"""

from __future__ import annotations

import json

from minibox.base.files import open_to_read
from minibox.errors import StoreError
from minibox.image.layout.layout import JSON_BLOB_BYTES_MAX
from minibox.image.layout.manifest import chain_ids, diff_ids
from minibox.image.reference import is_digest
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minibox.image.layout.layout import Layout

#: Members of a manifest to follow. Layers are not opened.
DOCUMENTS = ("config", "subject")


@record
class Reach:
    """Digests of blobs, whether they exist or not, and chain IDs of layers, whether they are unpacked or not."""

    blobs: frozenset[str]
    chain_ids: frozenset[str]


def reach(layout: Layout, digests: Iterable[str]) -> Reach:
    """Return these blobs and everything that they refer to: indexes, manifests, configs, layers."""
    blobs: set[str] = set()
    layers: set[str] = set()
    waiting = [digest for digest in digests if isinstance(digest, str)]
    while waiting:
        digest = waiting.pop()
        if digest in blobs or not is_digest(digest):
            continue
        blobs.add(digest)
        found = _read(layout, digest)
        layers.update(_chain_ids(found))
        waiting += [_digest(found.get(key)) for key in DOCUMENTS] + _digests(found.get("manifests"))
        blobs.update(filter(is_digest, (*_digests(found.get("layers")), *_digests(found.get("blobs")))))
    return Reach(frozenset(blobs), frozenset(layers))


def _digest(descriptor: Any) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    return digest if isinstance(digest, str) else ""


def _digests(descriptors: Any) -> list[str]:
    return [_digest(item) for item in descriptors] if isinstance(descriptors, list) else []


def _read(layout: Layout, digest: str) -> dict[str, Any]:
    """Return the JSON object in a blob, {} if there is none, without verifying the digest."""
    try:
        with open(open_to_read(layout.blob_path(digest)), "rb") as file:
            data = file.read(JSON_BLOB_BYTES_MAX + 1)
        found = json.loads(data) if data[:1] in (b"{", b" ", b"\n") and len(data) <= JSON_BLOB_BYTES_MAX else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _chain_ids(document: dict[str, Any]) -> tuple[str, ...]:
    try:
        return chain_ids(diff_ids(document)) if "rootfs" in document else ()
    except StoreError:
        return ()
