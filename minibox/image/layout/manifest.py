"""From a reference to an image: index, manifest, config, layers.

Source: OCI image-spec 1.1 (image-index.md, manifest.md, config.md). Docker's schema 2 media types mean the same
content, and are accepted, too.
"""

from __future__ import annotations

import hashlib

from minibox.errors import ImageNotFound, InvalidReference, StoreError
from minibox.image.layout.image import ResolvedImage
from minibox.image.layout.layout import PULLED_DIGEST, annotation, ref_name
from minibox.image.platform import best, host_platform, platform_of, runs
from minibox.image.reference import ImageName, Reference, is_digest, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minibox.image.layout.layout import Descriptor, Layout
    from minibox.image.platform import Platform

MEDIA_TYPE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_TYPE_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_TYPE_LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG_TYPES = (MEDIA_TYPE_CONFIG, "application/vnd.docker.container.image.v1+json")
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (MEDIA_TYPE_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
NESTED_INDEXES_MAX = 4
ID_DIGITS_MIN = 4
HEXADECIMAL = frozenset("0123456789abcdef")


def find_image(layout: Layout, name: ImageName, platform: Platform | None = None) -> ResolvedImage | None:
    """Find the image of that name; None if there is none.

    From an index, choose the image for ``platform``; if that is None, for this machine, or else the first.

    It may be a name as Docker users write it, a name exactly as another tool wrote it to index.json,
    ``NAME@DIGEST``, the ``sha256:<hex>`` of a manifest, or the id of an image (the digest of its config), at least
    its first four digits. A name takes precedence over an id.

    Raises:
        ImageNotFound: the image is not for ``platform``.
        InvalidReference: it is the beginning of several ids.
        StoreError: the image is damaged.
    """
    reference, wanted = name.text, name.reference
    descriptors = layout.descriptors()
    descriptor = _find_descriptor(descriptors, reference, wanted)
    full_name = str(wanted) if wanted is not None else reference
    if descriptor is None:
        descriptor = _find_by_id(layout, descriptors, reference, platform)
        full_name = reference
    if descriptor is None:
        return None
    digest = manifest_digest(layout, descriptor, platform)
    config_digest = config_digest_of(layout, digest)
    config = layout.read_json(config_digest)
    if platform is not None and not runs(platform, found := platform_of(config)):
        raise ImageNotFound(f"image {reference!r} in the store is for {found}, not {platform}")
    return ResolvedImage(full_name, digest, config, chain_ids(diff_ids(config)), config_digest)


def image_config(layout: Layout, digest: str) -> dict[str, Any]:
    """Return the image config of the manifest ``digest``."""
    return layout.read_json(config_digest_of(layout, digest))


def config_digest_of(layout: Layout, digest: str) -> str:
    """Return the digest of the config of the manifest ``digest``, which is the image's id."""
    descriptor = layout.read_json(digest).get("config")
    if not isinstance(descriptor, dict):
        raise StoreError(f"manifest {digest} is damaged: it has no config")
    found = descriptor.get("digest")
    if not isinstance(found, str):
        raise StoreError(f"manifest {digest} is damaged: its config has no digest")
    return found


def layer_descriptors(layout: Layout, digest: str, config: dict[str, Any]) -> list[tuple[Descriptor, str]]:
    """Return each layer's blob and diff ID, bottom first.

    Raises:
        StoreError: manifest and config have different numbers of layers.
    """
    layers = layout.read_json(digest).get("layers")
    ids = diff_ids(config)
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise StoreError(f"manifest {digest} is damaged: 'layers' is not a list of descriptors")
    if len(layers) != len(ids):
        raise StoreError(f"manifest {digest} is damaged: {len(layers)} layers, but {len(ids)} diff IDs in its config")
    return list(zip(layers, ids, strict=True))


def diff_ids(config: dict[str, Any]) -> list[str]:
    """Return the layers' diff IDs in an image config, bottom first. An image made of nothing but a config has none.

    Raises:
        StoreError: it isn't the config of an image.
    """
    rootfs = config.get("rootfs")
    if not isinstance(rootfs, dict):
        raise StoreError("the image has no layers", "it is an artifact, not an image that you can run")
    ids = rootfs.get("diff_ids")
    if ids is None:  # Docker leaves out an empty list, BuildKit writes null
        ids = []
    if not isinstance(ids, list) or not all(isinstance(item, str) and is_digest(item) for item in ids):
        raise StoreError("the image config is damaged: 'rootfs.diff_ids' is not a list of sha256 digests")
    return ids


def chain_ids(ids: Sequence[str]) -> tuple[str, ...]:
    """Return the chain ID of each layer with all below it, bottom first (config.md, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in ids:
        if chain:
            diff_id = "sha256:" + hashlib.sha256(f"{chain[-1]} {diff_id}".encode()).hexdigest()
        chain.append(diff_id)
    return tuple(chain)


def choose(index: dict[str, Any], digest: str, platform: Platform, *, any_else: bool = False) -> Descriptor:
    """Return the descriptor in an image index that fits ``platform`` best.

    Args:
        any_else: if there is none, return the first image.

    Raises:
        StoreError: there is none.
    """
    manifests = index.get("manifests")
    items = [item for item in manifests if isinstance(item, dict)] if isinstance(manifests, list) else []
    if len(items) == 1 and not items[0].get("platform"):
        return items[0]
    # An item without a platform, or with "unknown", isn't an image: it is a signature or an attestation.
    platforms = [platform_of(item["platform"] if isinstance(item.get("platform"), dict) else {}) for item in items]
    position = best(platform, platforms)
    if position is not None:
        return items[position]
    images = [number for number, item in enumerate(platforms) if item.os not in ("", "unknown")]
    if any_else and images:
        return items[images[0]]
    offered = dict.fromkeys(str(platforms[number]) for number in images)
    raise StoreError(
        f"image index {digest} has nothing for {platform}", f"it has {', '.join(offered)}" if offered else None
    )


def _find_descriptor(descriptors: list[Descriptor], reference: str, wanted: Reference | None) -> Descriptor | None:
    if wanted is None or wanted.digest:
        digest = reference if wanted is None else wanted.digest
        for descriptor in descriptors:
            if digest in (descriptor.get("digest"), annotation(descriptor, PULLED_DIGEST)):
                return descriptor
        return None
    full = str(wanted)
    loose = None
    for descriptor in descriptors:
        name = ref_name(descriptor)
        if name == full:
            return descriptor
        # Another tool wrote it: `skopeo copy docker://alpine oci:ROOT/images:alpine`.
        if name and loose is None and (name == reference or _full_name(name) == full):
            loose = descriptor
    return loose


def _find_by_id(
    layout: Layout, descriptors: list[Descriptor], reference: str, platform: Platform | None
) -> Descriptor | None:
    """Find the image whose id begins with ``reference``."""
    start = reference.removeprefix("sha256:")
    if len(start) < ID_DIGITS_MIN or not HEXADECIMAL.issuperset(start):
        return None
    found: dict[str, Descriptor] = {}
    for descriptor in descriptors:
        try:
            image_id = config_digest_of(layout, manifest_digest(layout, descriptor, platform))
        except StoreError:
            continue  # another image is damaged
        if image_id.startswith(f"sha256:{start}"):
            found.setdefault(image_id, descriptor)
    if len(found) > 1:
        raise InvalidReference(f"{reference!r} is the beginning of {len(found)} image ids", "write more of its digits")
    return next(iter(found.values()), None)


def _full_name(name: str) -> str:
    try:
        return str(parse(name))
    except InvalidReference:
        return ""


def manifest_digest(layout: Layout, descriptor: Descriptor, platform: Platform | None = None) -> str:
    """Return the digest of the manifest that ``descriptor`` means on ``platform``.

    None is this machine's, or the first of an index that has nothing for it: its user built or loaded it like this.

    Raises:
        StoreError: it isn't an image, has nothing for ``platform``, or an index is damaged.
    """
    for _ in range(NESTED_INDEXES_MAX):
        digest = descriptor.get("digest")
        if not isinstance(digest, str):
            raise StoreError("index.json is damaged: a descriptor has no digest")
        media_type = descriptor.get("mediaType")
        if media_type in MANIFEST_TYPES:
            return digest
        if media_type not in INDEX_TYPES:
            raise StoreError(f"{digest} has the media type {media_type!r}: it is not an image")
        descriptor = choose(layout.read_json(digest), digest, platform or host_platform(), any_else=platform is None)
    raise StoreError(f"image indexes are nested more than {NESTED_INDEXES_MAX} deep")
