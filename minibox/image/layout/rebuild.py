"""Rebuild a damaged index.json: find the images among the blobs. They have no names any more.

We don't guess names: whoever runs an image by its name must get the image that was given that name.
"""

from __future__ import annotations

import json

from minibox.base.files import names_in
from minibox.errors import StoreError
from minibox.image.layout.layout import Descriptor, Layout
from minibox.image.layout.manifest import MEDIA_TYPE_MANIFEST
from minibox.image.platform import platform_of
from minibox.image.reference import is_digest

BEGINNING = b"{"


def rebuild(layout: Layout) -> int:
    """Rebuild index.json and oci-layout, and return the number of images.

    Raises:
        StoreError: the disk is full, or the kernel refused.
    """
    found = [each for digest in _digests(layout) if (each := _manifest(layout, digest))]
    layout.rewrite(found)
    return len(found)


def _digests(layout: Layout) -> list[str]:
    return [f"sha256:{name}" for name in names_in(f"{layout.path}/blobs/sha256") if is_digest(f"sha256:{name}")]


def _manifest(layout: Layout, digest: str) -> Descriptor | None:
    """Return the descriptor of a blob that is an image's manifest, if it and its config are intact; otherwise None."""
    try:
        data = layout.read_blob(digest)
        manifest = json.loads(data) if data.startswith(BEGINNING) else {}
        config = layout.read_json(manifest["config"]["digest"])
        if not isinstance(manifest["layers"], list) or "rootfs" not in config:
            return None
        platform = platform_of(config)
    except (StoreError, ValueError, RecursionError, KeyError, TypeError):
        return None
    kind = manifest.get("mediaType")
    return {
        "mediaType": kind if isinstance(kind, str) else MEDIA_TYPE_MANIFEST,
        "digest": digest,
        "size": len(data),
        "platform": platform.document(),
    }
