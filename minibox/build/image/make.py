"""Make the image of a stage: pack each new layer into a blob, give it its chain ID, store config and manifest.

Each layer is packed and hashed once: the diff ID of a line's layer is remembered beside the cache.
"""

from __future__ import annotations

import os

from minibox.base.codec import FileKind
from minibox.errors import Unreadable, suppress
from minibox.image.layer import size as layer_size
from minibox.image.layout.layout import Layout
from minibox.image.layout.manifest import (
    MEDIA_TYPE_CONFIG,
    MEDIA_TYPE_LAYER,
    MEDIA_TYPE_MANIFEST,
    chain_ids,
    layer_descriptors,
)
from minibox.image.reference import is_digest
from minibox.record import record
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import layers_named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from minibox.build.image.draft import Draft
    from minibox.build.steps.step import Place
    from minibox.image.layout.image import ResolvedImage
    from minibox.image.layout.layout import Descriptor

PACKED = FileKind("packed layer", {"DiffId": is_digest, "SizeBytes": int}, indented=False)
TYPES = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": MEDIA_TYPE_LAYER + "+gzip",
    "application/vnd.docker.image.rootfs.diff.tar": MEDIA_TYPE_LAYER,
}


@record
class Made:
    """An image in the store: the digests of its config, which is its id, and of its manifest.

    Attributes:
        is_new: a layer was packed for it, whose blob isn't synced to disk yet.
    """

    id: str
    digest: str
    descriptor: Descriptor
    is_new: bool


def make_image(
    place: Place,
    layout: Layout,
    draft: Draft,
    base: ResolvedImage | None,
    layers: Sequence[str],
    below: Sequence[str],
    annotations: Sequence[tuple[str, str]] = (),
    sizes: Mapping[str, int] | None = None,
) -> Made:
    """Store an image. It has no name yet: call this inside `Layout.adding`, and name it there.

    Args:
        base: the image that the stage began with; None for ``scratch``.
        layers: the layers of its lines, bottom first.
        below: the layers on disk that the stage began with, bottom first.
        sizes: the size of the files in each layer that this build has packed already.

    Raises:
        MiniboxError: the disk is full, or a file can't be read.
    """
    described: list[Descriptor] = []
    diff_ids: list[str] = []
    if base:
        for descriptor, diff_id in layer_descriptors(layout, base.digest, base.config):
            kind = str(descriptor.get("mediaType"))
            described.append({**descriptor, "mediaType": TYPES.get(kind, kind)})
            diff_ids.append(diff_id)
    storage = snapshotter(place.root, place.driver)
    is_new = False
    for number, layer in enumerate(layers, 1):
        diff_id, size, files_bytes = packed(place, layout, (*below, *layers[:number]))
        diff_ids.append(diff_id)
        if files_bytes is None and sizes:
            files_bytes = sizes.get(layer)
        if files_bytes is not None:
            is_new = True
            layer_size.note(place.root, chain_ids(diff_ids)[-1], files_bytes)
        described.append({"mediaType": MEDIA_TYPE_LAYER, "digest": diff_id, "size": size})
        storage.alias(chain_ids(diff_ids)[-1], layer)
    config = layout.write_json(draft.image_config(diff_ids), MEDIA_TYPE_CONFIG)
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_MANIFEST,
        "config": config,
        "layers": described,
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    platform = {key: draft.kept[key] for key in ("architecture", "os", "variant") if key in draft.kept}
    descriptor = {**layout.write_json(manifest, MEDIA_TYPE_MANIFEST), "platform": platform}
    return Made(config["digest"], descriptor["digest"], descriptor, is_new)


def packed(
    place: Place, layout: Layout, chain: tuple[str, ...], check: Callable[[], None] = lambda: None
) -> tuple[str, int, int | None]:
    """Return diff ID and size of the topmost layer; pack it into a blob if there is none yet.

    The third is the size of its files if it was packed now, None otherwise. ``check`` is that of `line_layer.pack`.
    """
    try:
        found = PACKED.read(_note_path(place.root, place.driver, chain[-1]))
        if os.path.exists(layout.blob_path(found["DiffId"])):
            return found["DiffId"], found["SizeBytes"], None
    except (OSError, Unreadable):
        pass
    from minibox.engine.files import line_layer

    diff_id, size, files_bytes = line_layer.pack(place.root, place.driver, chain, layout, check)
    note_packed(place, chain[-1], diff_id, size)
    return diff_id, size, files_bytes


def note_packed(place: Place, layer: str, diff_id: str, size_bytes: int) -> None:
    """Remember the blob of a line's layer for `packed`."""
    note = _note_path(place.root, place.driver, layer)
    os.makedirs(os.path.dirname(note), 0o700, exist_ok=True)
    PACKED.write(note, {"DiffId": diff_id, "SizeBytes": size_bytes})


def forget(root: str, driver: str, layer: str) -> None:
    """Forget what `packed` has remembered of a layer, and condemn its blob. It is no error if it was never packed."""
    note = _note_path(root, driver, layer)
    with suppress(OSError, Unreadable):
        condemn(Layout(root), PACKED.read(note)["DiffId"])
    with suppress(FileNotFoundError):
        os.unlink(note)


def condemn(layout: Layout, digest: str) -> None:
    """Let the next collection remove a blob, unless an image needs it: otherwise it spares young ones."""
    with suppress(FileNotFoundError):
        os.utime(layout.blob_path(digest), (0, 0))


def packed_layers(root: str) -> set[tuple[str, str]]:
    """Return the driver and name of all layers of which `packed` has remembered something."""
    return layers_named(f"{root}/build/packed")


def _note_path(root: str, driver: str, layer: str) -> str:
    return f"{root}/build/packed/{driver}-{layer[7:]}"
