"""What images there are: index.json read as users see it, images with their names.

An image is what its config says it is: index.json may name it several times, by manifests that differ in nothing but
the compression of the layers.
"""

from __future__ import annotations

import os
import time

from minibox.errors import ImageNotFound, InvalidReference, StoreError
from minibox.image.layout import PULLED_DIGEST, annotation, ref_name
from minibox.image.manifest import (
    HEXADECIMAL,
    ID_DIGITS_MIN,
    chain_ids,
    config_digest_of,
    diff_ids,
    layer_descriptors,
    manifest_digest,
)
from minibox.image.platform import host_platform
from minibox.image.reference import Reference, is_digest, parse
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minibox.image.layout import Descriptor, Layout

NONE = "<none>"


@record
class Name:
    """A name of an image.

    Attributes:
        text: as it stands in index.json; "" for an image without one.
        repository, tag: as users see them; ``<none>`` where there is none.
        digest: of what the name means: a manifest, or an index of several; that of the registry where it was pulled.
    """

    text: str
    repository: str
    tag: str
    digest: str

    @property
    def familiar(self) -> str:
        """``debian:12``; what is in index.json when that is no reference."""
        if self.tag != NONE:
            return f"{self.repository}:{self.tag}"
        return f"{self.repository}@{self.digest}" if "@" in self.text else self.text


@record
class StoredImage:
    """An image of the store.

    Attributes:
        id: the digest of its config; "" when its manifest is damaged.
        entries: its descriptors in index.json.
        digest: of the manifest; of what is in index.json when it is damaged.
        config: the OCI image config.
        layers: descriptor and diff ID of each layer, bottom first.
        chain_ids: of the layers, bottom first.
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
        """Its names, sorted; none for one that is dangling."""
        return tuple(sorted((name_of(entry) for entry in self.entries if ref_name(entry)), key=lambda name: name.text))

    @property
    def created(self) -> str:
        """When it was made, by RFC 3339; "" when nobody says."""
        created = self.config.get("created")
        return created if isinstance(created, str) else ""

    @property
    def labels(self) -> dict[str, str]:
        process = self.config.get("config")
        labels = process.get("Labels") if isinstance(process, dict) else None
        return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}


def name_of(entry: Descriptor) -> Name:
    """The name that index.json gives a descriptor."""
    text = ref_name(entry)
    digest = annotation(entry, PULLED_DIGEST) or str(entry.get("digest", ""))
    try:
        reference = parse(text)
    except InvalidReference:
        return Name(text, text or NONE, NONE, digest)
    bare = Reference(reference.domain, reference.path, "", "").familiar
    return Name(text, bare, reference.tag or NONE, digest)


def inventory(layout: Layout) -> list[StoredImage]:
    """All images, newest first; those that are damaged have an ``error``.

    Raises:
        StoreError: index.json can't be read.
    """
    entries: dict[str, list[Descriptor]] = {}
    damaged = []
    for entry in layout.descriptors():
        try:
            image_id = config_digest_of(layout, manifest_digest(layout, entry, host_platform()))
        except StoreError as error:
            damaged.append(_damaged(layout, "", [entry], error))
        else:
            entries.setdefault(image_id, []).append(entry)
    images = [_read(layout, image_id, same) for image_id, same in entries.items()]
    return sorted([*images, *damaged], key=lambda image: (image.created, image.id), reverse=True)


def _read(layout: Layout, image_id: str, entries: list[Descriptor]) -> StoredImage:
    try:
        digest = manifest_digest(layout, entries[0], host_platform())
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
    """When a blob came into the store; now for one that isn't there: no image is old by what we can't know."""
    try:
        status = os.stat(layout.blob_path(digest))
        # 0: it was an image's that was removed, and is one's again; since then at the latest.
        return status.st_mtime if status.st_mtime > 0 else status.st_ctime
    except (OSError, StoreError):
        return time.time()


def find(images: Sequence[StoredImage], reference: str) -> tuple[StoredImage, Name | None]:
    """The image that ``reference`` means, damaged or not, and the name, when it is one.

    As `manifest.find_image`: a name, NAME@DIGEST, a digest, or the beginning of an id.

    Raises:
        InvalidReference: ``reference`` is malformed, or the beginning of several ids.
        ImageNotFound: there is none.
    """
    wanted = None if is_digest(reference) or is_digest(f"sha256:{reference}") else parse(reference)
    named = [(image, name) for image in images for name in image.names]
    full = str(wanted) if wanted and not wanted.digest else ""
    pinned = (wanted.name, wanted.digest) if wanted and wanted.digest else None
    for meant in (
        [pair for pair in named if pair[1].text == full],
        [pair for pair in named if pair[1].text == reference],  # as another tool put it there
        [pair for pair in named if full and _full(pair[1].text) == full],
        [pair for pair in named if pinned == (_repository(pair[1].text), pair[1].digest)],
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
    raise ImageNotFound(f"image {reference!r} is not in the store", "minibox images lists what is there")


def _full(text: str) -> str:
    try:
        return str(parse(text))
    except InvalidReference:
        return ""


def _repository(text: str) -> str:
    try:
        return parse(text).name
    except InvalidReference:
        return ""
