"""List the images: index.json as users see it, images with their names.

The config identifies an image. index.json may contain it several times, with manifests that differ only in the
compression of the layers.
"""

from __future__ import annotations

import os
import time

from minibox.errors import ImageNotFound, InvalidReference, StoreError
from minibox.image.layout.layout import PULLED_DIGEST, annotation, ref_name
from minibox.image.layout.manifest import (
    HEXADECIMAL,
    ID_DIGITS_MIN,
    chain_ids,
    config_digest_of,
    diff_ids,
    layer_descriptors,
    manifest_digest,
)
from minibox.image.reference import Reference, parse, parse_name
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minibox.image.layout.layout import Descriptor, Layout

NONE = "<none>"


@record
class Name:
    """A name of an image.

    Attributes:
        text: the name in index.json; "" for an image without one.
        repository, tag: as users see them; ``<none>`` if there is none.
        digest: the digest of its manifest, or of an index of several; for a pulled image, the registry's.
        reference: the name, parsed; None if it isn't a reference.
    """

    text: str
    repository: str
    tag: str
    digest: str
    reference: Reference | None = None

    @property
    def familiar(self) -> str:
        """The short form: ``debian:12``; the name in index.json if that isn't a reference."""
        if self.tag != NONE:
            return f"{self.repository}:{self.tag}"
        return f"{self.repository}@{self.digest}" if "@" in self.text else self.text


@record
class StoredImage:
    """An image of the store.

    Attributes:
        id: the digest of its config; "" if its manifest is damaged.
        entries: its descriptors in index.json.
        digest: the digest of its manifest; of its entry in index.json if it is damaged.
        config: the OCI image config.
        layers: descriptor and diff ID of each layer, bottom first.
        chain_ids: the chain IDs of the layers, bottom first.
        stored_s: when its config came into the store, in seconds since 1970.
        error: why it can't be used, or "".
        hint: what the user can do about it, or "".
    """

    id: str
    entries: tuple[Descriptor, ...]
    digest: str
    config: dict[str, Any]
    layers: tuple[tuple[Descriptor, str], ...]
    chain_ids: tuple[str, ...]
    stored_s: float = 0.0
    error: str = ""
    hint: str = ""

    @property
    def names(self) -> tuple[Name, ...]:
        """Its names, sorted; a dangling image has none."""
        return tuple(sorted((name_of(entry) for entry in self.entries if ref_name(entry)), key=lambda name: name.text))

    @property
    def created(self) -> str:
        """When it was made, in RFC 3339; "" if unknown."""
        created = self.config.get("created")
        return created if isinstance(created, str) else ""

    @property
    def labels(self) -> dict[str, str]:
        process = self.config.get("config")
        labels = process.get("Labels") if isinstance(process, dict) else None
        return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}


def name_of(entry: Descriptor) -> Name:
    """Return the name of a descriptor in index.json."""
    text = ref_name(entry)
    digest = annotation(entry, PULLED_DIGEST) or str(entry.get("digest", ""))
    try:
        reference = parse(text)
    except InvalidReference:
        return Name(text, text or NONE, NONE, digest)
    bare = Reference(reference.domain, reference.path, "", "").familiar
    return Name(text, bare, reference.tag or NONE, digest, reference)


def inventory(layout: Layout) -> list[StoredImage]:
    """Return all images, newest first. Damaged ones have an ``error``.

    Raises:
        StoreError: index.json can't be read.
    """
    entries: dict[str, list[Descriptor]] = {}
    damaged = []
    for entry in layout.descriptors():
        try:
            image_id = config_digest_of(layout, manifest_digest(layout, entry))
        except StoreError as error:
            damaged.append(_damaged(layout, "", [entry], error))
        else:
            entries.setdefault(image_id, []).append(entry)
    images = [_read(layout, image_id, same) for image_id, same in entries.items()]
    return sorted([*images, *damaged], key=lambda image: (image.created, image.id), reverse=True)


def _read(layout: Layout, image_id: str, entries: list[Descriptor]) -> StoredImage:
    try:
        digest = manifest_digest(layout, entries[0])
        config = layout.read_json(image_id)
        layers = layer_descriptors(layout, digest, config)
        chains = chain_ids(diff_ids(config))
        return StoredImage(image_id, tuple(entries), digest, config, tuple(layers), chains, _stored_s(layout, image_id))
    except StoreError as error:
        return _damaged(layout, image_id, entries, error)


def _damaged(layout: Layout, image_id: str, entries: list[Descriptor], error: StoreError) -> StoredImage:
    digest = str(entries[0].get("digest", ""))
    stored_s = _stored_s(layout, image_id or digest)
    return StoredImage(image_id, tuple(entries), digest, {}, (), (), stored_s, str(error), error.hint or "")


def _stored_s(layout: Layout, digest: str) -> float:
    """Return when a blob came into the store; now if it is missing, so that no image seems old without reason."""
    try:
        status = os.stat(layout.blob_path(digest))
        # 0: its image was removed (`condemn`), and then came back. Its status changed at the removal.
        return status.st_mtime if status.st_mtime > 0 else status.st_ctime
    except (OSError, StoreError):
        return time.time()


def find(images: Sequence[StoredImage], reference: str) -> tuple[StoredImage, Name | None]:
    """Find an image, damaged or not, and the name if ``reference`` is one.

    As for `manifest.find_image`, it is a name, NAME@DIGEST, a digest, or the beginning of an id.

    Raises:
        InvalidReference: ``reference`` is malformed, or the beginning of several ids.
        ImageNotFound: there is none.
    """
    wanted = parse_name(reference).reference
    named = [(image, name) for image in images for name in image.names]
    full = str(wanted) if wanted and not wanted.digest else ""
    pinned = (wanted.name, wanted.digest) if wanted and wanted.digest else None
    for meant in (
        [pair for pair in named if pair[1].text == full],
        [pair for pair in named if pair[1].text == reference],  # exactly as another tool wrote it
        [pair for pair in named if full and str(pair[1].reference) == full],
        [pair for pair in named if pair[1].reference and pinned == (pair[1].reference.name, pair[1].digest)],
    ):
        if meant:
            return meant[0]
    digest = wanted.digest if wanted else reference
    for image in images:
        if digest and digest in (image.digest, *(str(entry.get("digest")) for entry in image.entries)):
            return image, None
    start = reference.removeprefix("sha256:")
    if len(start) >= ID_DIGITS_MIN and HEXADECIMAL.issuperset(start):
        begun = [image for image in images if image.id.startswith(f"sha256:{start}")]
        if len(begun) > 1:
            raise InvalidReference(f"{reference!r} is the beginning of {len(begun)} image ids", "write more digits")
        if begun:
            return begun[0], None
    raise ImageNotFound(f"image {reference!r} is not in the store", "minibox images lists all images")
