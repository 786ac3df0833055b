"""`minibox commit`: make an image from a container: the layers of its image, plus one with its changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from minibox.engine.files.tree import MOUNT_POINTS, Directories, Tree, container_tree
from minibox.engine.host.user_namespace import run_inside
from minibox.engine.state import containers
from minibox.engine.state.freezing import frozen
from minibox.errors import InvalidReference, MiniboxError, StoreError, kernel_says
from minibox.image.layout.layout import Descriptor, Layout
from minibox.image.layout.manifest import MEDIA_TYPE_CONFIG, MEDIA_TYPE_LAYER, MEDIA_TYPE_MANIFEST
from minibox.image.store import ImageStore
from minibox.record import record

MEDIA_TYPE_LAYER_GZIP = MEDIA_TYPE_LAYER + "+gzip"
# Docker's names for these. Our manifest is OCI's, and so is everything in it.
LAYER_TYPES = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": MEDIA_TYPE_LAYER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar": MEDIA_TYPE_LAYER,
}


@record
class CommitOptions:
    """Options of `docker commit`.

    Attributes:
        reference: the image's name; "" for none.
        change: Dockerfile instructions; see `minibox.image.layout.config_changes`.
        pause: freeze the container's processes meanwhile.
    """

    reference: str = ""
    author: str = ""
    message: str = ""
    change: tuple[str, ...] = ()
    pause: bool = True


def commit(root: str, name: str, options: CommitOptions, on_note: Callable[[str], None] = lambda _: None) -> str:
    """Make an image from a container, running or not, and return its id, ``sha256:<hex>`` of its config.

    As in Docker, an unchanged container adds no layer, and mounts in the container are left out.

    Args:
        on_note: called with each note for the user.

    Raises:
        MiniboxError: no such container, a malformed name or change, or the disk is full.
        OSError: a file can't be read.
    """
    from minibox.image.layout.config_changes import apply_changes

    reference = _reference(options.reference)
    found = containers.find(root, name)
    tree = container_tree(root, found["Id"])
    layout = ImageStore(root).layout
    with layout.adding():
        parent = _Parent(layout, found, tree)
        config = apply_changes(found.get("Config") or parent.config.get("config") or {}, options.change)
        # What a snapshot added on top of the image's layers is new too.
        below = Tree(tree.driver, tree.chain_ids[: len(parent.layers)])
        with frozen(root, found["Id"], on_note) if options.pause else nullcontext():
            with Directories(root, tree) as directories:
                layer = run_inside(lambda: _pack(directories, layout, tree, below))
        return _add(layout, parent, reference, _image_config(parent.config, config, layer, options, found), layer)


class _Parent:
    """The image that a container was made from. It may have lost its name: only its blobs are needed."""

    def __init__(self, layout: Layout, found: dict[str, Any], tree: Tree) -> None:
        from minibox.image.layout.manifest import image_config, layer_descriptors

        digest = found.get("ImageDigest")
        if not isinstance(digest, str):
            raise MiniboxError(f"container {found['Id'][:12]} has no record of its image")
        self.config = image_config(layout, digest)
        self.layers: list[Descriptor] = []
        for descriptor, _ in layer_descriptors(layout, digest, self.config):
            media_type = descriptor.get("mediaType")
            self.layers.append({**descriptor, "mediaType": LAYER_TYPES.get(str(media_type), media_type)})
        if len(self.layers) > len(tree.chain_ids):
            raise StoreError(f"container {found['Id'][:12]} has {len(tree.chain_ids)} layers, "
                             f"but its image {digest} has {len(self.layers)}")  # fmt: skip


def _reference(text: str) -> str:
    """Return a name in full.

    Raises:
        InvalidReference: it is malformed, or has a digest.
    """
    from minibox.image.reference import parse

    if not text:
        return ""
    name = parse(text)
    if name.digest:
        raise InvalidReference(f"invalid reference {ascii(text)}: the name of a new image can't have a digest")
    return str(name)


def _pack(directories: Directories, layout: Layout, tree: Tree, below: Tree) -> tuple[str, str, int] | None:
    """Pack the changes into a blob and return its digest, diff ID and size; None if there are none."""
    from minibox.image.layer.changes import changes
    from minibox.image.layer.compression import compress
    from minibox.image.layer.pack import LayerWriter

    with (
        directories.stack(below) as old,
        directories.stack(tree) as new,
        layout.new_blob() as blob,
    ):
        with compress(blob) as compressor:
            writer = LayerWriter(compressor)
            try:
                count = writer.add_changes(changes(old, new, descends=True, made=MOUNT_POINTS))
            except OSError as error:
                if error.filename:  # not an error of the blob
                    raise StoreError(f"read {os.fsdecode(error.filename)}: {kernel_says(error)}") from error
                raise
            diff_id, _ = writer.close()
        if not count:
            return None
        layout.keep_blob(blob, compressor.digest)
        return compressor.digest, diff_id, compressor.size_bytes


def _image_config(
    parent: dict[str, Any],
    process: dict[str, Any],
    layer: tuple[str, str, int] | None,
    options: CommitOptions,
    found: dict[str, Any],
) -> dict[str, Any]:
    from datetime import UTC, datetime

    created = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    entry: dict[str, Any] = {"created": created, "created_by": " ".join(found.get("Command") or ())}
    if options.author:
        entry["author"] = options.author
    if options.message:
        entry["comment"] = options.message
    diff_ids = list(parent["rootfs"]["diff_ids"])
    if layer:
        diff_ids.append(layer[1])
    else:
        entry["empty_layer"] = True
    history = list(parent.get("history") or ())
    told = sum(not each.get("empty_layer") for each in history)
    history[:0] = [{"created_by": "unknown"}] * (len(parent["rootfs"]["diff_ids"]) - told)  # readers count the layers
    # Only the members that OCI defines: Docker's own describe the parent.
    kept = ("architecture", "os", "os.version", "os.features", "variant")
    return {
        **{key: parent[key] for key in kept if key in parent},
        **({"author": options.author} if options.author else {}),
        "created": created,
        "config": process,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [*history, entry],
    }


def _add(
    layout: Layout, parent: _Parent, reference: str, config: dict[str, Any], layer: tuple[str, str, int] | None
) -> str:
    """Store config and manifest, name the image, and return the config's digest."""
    layers = list(parent.layers)
    if layer:
        layers.append({"mediaType": MEDIA_TYPE_LAYER_GZIP, "digest": layer[0], "size": layer[2]})
    described = layout.write_json(config, MEDIA_TYPE_CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": described, "layers": layers}
    platform = {key: config[key] for key in ("architecture", "os", "variant") if key in config}
    descriptor = {**layout.write_json(manifest, MEDIA_TYPE_MANIFEST), "platform": platform}
    if reference:
        layout.set_name(reference, descriptor)
    else:
        layout.change(lambda items: [*items, descriptor])
    digest: str = described["digest"]
    return digest
