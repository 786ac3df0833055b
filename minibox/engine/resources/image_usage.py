"""Measure images: their size, and the disk space that they use.

As in Docker, the size of an image is the size of the files in its layers; the blobs that these came as are counted
separately. A byte is *unique* to an image if only that image has it, otherwise *shared*. Disk space of blobs and
unpacked layers is counted in whole blocks, like du(1) does.
"""

from __future__ import annotations

import os
import time
from collections import Counter

from minibox.base.files import replace_link
from minibox.errors import suppress
from minibox.image.layer.size import layer_size
from minibox.image.layout.reach import reach
from minibox.image.reference import is_digest
from minibox.record import record
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import DRIVERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from minibox.image.layout.inventory import StoredImage
    from minibox.image.layout.layout import Layout
    from minibox.image.layout.reach import Reach

    #: A blob by its digest, or an unpacked layer by its storage driver and its chain ID.
    Thing = str | tuple[str, str]

# Another tool may be writing a blob that has no name yet, so we leave it alone for this long.
UNNAMED_KEPT_S = 3600


@record
class Uses:
    """What containers need, even if index.json doesn't list it.

    Attributes:
        digests: the digests of their images' manifests, one for each container.
        layers: the storage drivers and chain IDs of the layers that they use.
        chain_ids: the layers that containers which are being started will use.
    """

    digests: tuple[str, ...]
    layers: frozenset[tuple[str, str]]
    chain_ids: frozenset[str]


@record
class Disk:
    """What is on disk.

    Attributes:
        sizes: the bytes of each blob and layer.
        young: blobs that are too young to be collected for having no name.
        aliases: layers that are second names, each with the layer that it means.
    """

    sizes: Mapping[Thing, int]
    young: frozenset[str]
    aliases: Mapping[Thing, Thing]

    def bytes_of(self, things: Iterable[Thing]) -> int:
        return sum(self.sizes.get(thing, 0) for thing in things)

    def things_of(self, part: Reach) -> frozenset[Thing]:
        """Return what exists on disk of a part of the store."""
        return frozenset(
            thing
            for thing in self.sizes
            if (thing in part.blobs if isinstance(thing, str) else thing[1] in part.chain_ids)
        )


@record
class ImageUsage:
    """The size of one image.

    Attributes:
        size_bytes: the size of its files.
        shared_bytes, unique_bytes: the size of layers that other images have, too, and of those that only this one has.
        blob_bytes: the disk space of its blobs.
        containers: how many containers use it.
    """

    size_bytes: int
    shared_bytes: int
    unique_bytes: int
    blob_bytes: int
    containers: int


@record
class Usage:
    """The size of all images.

    Attributes:
        images: each image, in the given order.
        size_bytes: the size of all together, with shared layers counted once.
        reclaimable_bytes: the size of layers that no container uses.
        blobs, used_blobs: the number of blobs, and of those whose images are used by containers.
        blob_bytes: the disk space of all blobs.
        reclaimable_blob_bytes: the disk space that removing all images without containers would free in blobs.
        leftover_bytes: the disk space of blobs and layers that belong to no image.
    """

    images: tuple[ImageUsage, ...]
    size_bytes: int
    reclaimable_bytes: int
    blobs: int
    used_blobs: int
    blob_bytes: int
    reclaimable_blob_bytes: int
    leftover_bytes: int


def look(layout: Layout) -> Disk:
    """Measure everything on disk. Layers never change, so each is measured only once.

    An ordinary user calls this in `user_namespace.run_inside`, since layers may have directories that this user can't
    read.
    """
    sizes: dict[Thing, int] = {}
    young = set()
    now_s = time.time()
    for name in _listed(f"{layout.path}/blobs/sha256"):
        if is_digest(f"sha256:{name}"):
            try:
                status = os.lstat(f"{layout.path}/blobs/sha256/{name}")
            except OSError:
                continue
            sizes[f"sha256:{name}"] = status.st_blocks * 512
            if now_s - status.st_mtime < UNNAMED_KEPT_S:
                young.add(f"sha256:{name}")
    aliases: dict[Thing, Thing] = {}
    for driver in DRIVERS:
        storage = snapshotter(layout.root, driver)
        for chain_id in storage.layers():
            sizes[driver, chain_id] = layer_bytes(layout.root, driver, chain_id)
        aliases.update({(driver, name): (driver, layer) for name, layer in storage.aliases().items()})
    return Disk(sizes, frozenset(young), aliases)


def layer_bytes(root: str, driver: str, chain_id: str) -> int:
    """Return the disk space of an unpacked layer, from the last time if it is still the same directory or file."""
    storage = snapshotter(root, driver)
    path = storage.describe("none", (chain_id,)).lowers[0]
    note = f"{root}/cache/usage/{driver}-{chain_id[7:]}"
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    # A symlink is the cheapest note on disk: it takes one system call to read, and is never half written.
    same = f"{status.st_dev}:{status.st_ino}:{status.st_ctime_ns}:"
    with suppress(OSError):
        kept = os.readlink(note)
        if kept.startswith(same) and kept[len(same) :].isdigit():
            return int(kept[len(same) :])
    size_bytes = storage.layer_bytes(chain_id)
    with suppress(OSError):  # it will be measured again
        os.makedirs(os.path.dirname(note), mode=0o700, exist_ok=True)
        replace_link(note, f"{same}{size_bytes}")
    return size_bytes


def garbage(
    layout: Layout, disk: Disk, kept: Iterable[StoredImage], uses: Uses, released: Collection[str] = ()
) -> frozenset[Thing]:
    """Return what neither the images ``kept`` nor containers need.

    Args:
        released: blobs that belonged to an image until now. They are garbage even if they are young.
    """
    needed = reach(layout, (*(str(entry.get("digest")) for image in kept for entry in image.entries), *uses.digests))
    images = reach(layout, (str(entry.get("digest")) for image in kept for entry in image.entries)).chain_ids
    layers: set[Thing] = {
        thing
        for thing in disk.sizes
        if not isinstance(thing, str) and (thing[1] in images or thing[1] in uses.chain_ids or thing in uses.layers)
    }
    layers |= {disk.aliases[thing] for thing in layers if thing in disk.aliases}
    return frozenset(
        thing
        for thing in disk.sizes
        if (
            thing not in needed.blobs and (thing in released or thing not in disk.young)
            if isinstance(thing, str)
            else thing not in layers
        )
    )


def blobs_of(layout: Layout, images: Iterable[StoredImage]) -> frozenset[str]:
    """Return all blobs of ``images``, whether they exist or not."""
    return reach(layout, (str(entry.get("digest")) for image in images for entry in image.entries)).blobs


def usage(layout: Layout, disk: Disk, images: Sequence[StoredImage], uses: Uses) -> Usage:
    """Return the size of ``images``, which must be all images, and the disk space that they use."""
    parts = [reach(layout, (str(entry.get("digest")) for entry in image.entries)) for image in images]
    users = [sum(digest in part.blobs for digest in uses.digests) for part in parts]
    sizes = {
        chain_id: layer_size(layout, chain_id, str(descriptor.get("digest")))
        for image in images
        for (descriptor, _), chain_id in zip(image.layers, image.chain_ids)
    }
    owners = Counter(chain_id for image in images for chain_id in set(image.chain_ids))
    rows = []
    for image, part, count in zip(images, parts, users):
        size = sum(map(sizes.__getitem__, image.chain_ids))
        unique = sum(sizes[chain_id] for chain_id in image.chain_ids if owners[chain_id] == 1)
        rows.append(ImageUsage(size, size - unique, unique, disk.bytes_of(part.blobs), count))
    used = [image for image, count in zip(images, users) if count]
    unused = blobs_of(layout, (image for image, count in zip(images, users) if not count))
    used_layers = {chain_id for image in used for chain_id in image.chain_ids}
    garbage_blobs = [thing for thing in garbage(layout, disk, used, uses, unused) if isinstance(thing, str)]
    blobs = [thing for thing in disk.sizes if isinstance(thing, str)]
    of_images = {thing for part in parts for thing in disk.things_of(part)}
    return Usage(
        tuple(rows),
        sum(sizes.values()),
        sum(size for chain_id, size in sizes.items() if chain_id not in used_layers),
        len(blobs),
        len(blobs_of(layout, used).intersection(blobs)),
        disk.bytes_of(blobs),
        disk.bytes_of(garbage_blobs),
        disk.bytes_of(disk.sizes.keys() - of_images),
    )


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
