"""What images take of the disk: the blobs that they came as, and their layers unpacked.

A byte is *unique* to an image when only that image needs it, else *shared*. All sizes are those of whole blocks, as
du(1) counts them, so that a removal gives back what was said.
"""

from __future__ import annotations

import os
import time

from minibox.image.reach import reach
from minibox.image.reference import is_digest
from minibox.record import record
from minibox.storage import DRIVERS, snapshotter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from minibox.image.inventory import StoredImage
    from minibox.image.layout import Layout
    from minibox.image.reach import Reach

    #: A blob by its digest, or an unpacked layer by its storage driver and its chain ID.
    Thing = str | tuple[str, str]

# A blob that nothing names may be another tool's that is just writing: for this long it isn't touched.
UNNAMED_KEPT_S = 3600


@record
class Uses:
    """What containers need, whatever index.json says.

    Attributes:
        digests: of the manifests of their images, one for each container.
        layers: storage drivers and chain IDs that they stand on.
        chain_ids: layers that those who are being started will stand on.
    """

    digests: tuple[str, ...]
    layers: frozenset[tuple[str, str]]
    chain_ids: frozenset[str]


@record
class Disk:
    """What is on disk.

    Attributes:
        sizes: bytes of each thing.
        young: blobs that are too young to be collected only because nothing names them.
    """

    sizes: Mapping[Thing, int]
    young: frozenset[str]

    def bytes_of(self, things: Iterable[Thing]) -> int:
        return sum(self.sizes.get(thing, 0) for thing in things)

    def things_of(self, part: Reach) -> frozenset[Thing]:
        """What is on disk of a part of the store."""
        return frozenset(
            thing
            for thing in self.sizes
            if (thing in part.blobs if isinstance(thing, str) else thing[1] in part.chain_ids)
        )


@record
class ImageUsage:
    """What one image takes, in bytes; ``containers`` are those that use it."""

    size_bytes: int
    shared_bytes: int
    unique_bytes: int
    containers: int


@record
class Usage:
    """What all images take.

    Attributes:
        images: of each, in the order they were given.
        size_bytes: of all together, leftovers too.
        leftover_bytes: what belongs to no image.
        reclaimable_bytes: what goes when all images are removed that no container uses.
    """

    images: tuple[ImageUsage, ...]
    size_bytes: int
    leftover_bytes: int
    reclaimable_bytes: int


def look(layout: Layout) -> Disk:
    """Look at the disk. Layers are measured once: they never change.

    An ordinary user calls this in `user_namespace.run_inside`, since layers may have directories that are closed to him.
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
    for driver in DRIVERS:
        for chain_id in snapshotter(layout.root, driver).layers():
            sizes[driver, chain_id] = layer_bytes(layout.root, driver, chain_id)
    return Disk(sizes, frozenset(young))


def layer_bytes(root: str, driver: str, chain_id: str) -> int:
    """What an unpacked layer takes; known from the last time where it is the same directory or file still."""
    storage = snapshotter(root, driver)
    path = storage.describe("none", (chain_id,)).lowers[0]
    note = f"{root}/cache/usage/{driver}-{chain_id[7:]}"
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    # A symlink is the cheapest note on disk: one system call to read, and never half written.
    same = f"{status.st_dev}:{status.st_ino}:{status.st_ctime_ns}:"
    try:
        kept = os.readlink(note)
        if kept.startswith(same) and kept[len(same) :].isdigit():
            return int(kept[len(same) :])
    except OSError:
        pass
    size_bytes = storage.layer_bytes(chain_id)
    temporary = f"{note}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(note), mode=0o700, exist_ok=True)
        os.symlink(f"{same}{size_bytes}", temporary)
        os.rename(temporary, note)
    except OSError:
        pass  # it is measured again the next time
    return size_bytes


def garbage(
    layout: Layout, disk: Disk, kept: Iterable[StoredImage], uses: Uses, released: Collection[str] = ()
) -> frozenset[Thing]:
    """What neither the images ``kept`` nor containers need.

    Args:
        released: blobs that were an image's until now: they go however young they are.
    """
    needed = reach(layout, (*(str(entry.get("digest")) for image in kept for entry in image.entries), *uses.digests))
    images = reach(layout, (str(entry.get("digest")) for image in kept for entry in image.entries)).chain_ids
    return frozenset(
        thing
        for thing in disk.sizes
        if (
            thing not in needed.blobs and (thing in released or thing not in disk.young)
            if isinstance(thing, str)
            else thing[1] not in images and thing[1] not in uses.chain_ids and thing not in uses.layers
        )
    )


def blobs_of(layout: Layout, images: Iterable[StoredImage]) -> frozenset[str]:
    """All blobs of ``images``, whether they are there or not."""
    return reach(layout, (str(entry.get("digest")) for image in images for entry in image.entries)).blobs


def usage(layout: Layout, disk: Disk, images: Sequence[StoredImage], uses: Uses) -> Usage:
    """What ``images``, which are all, take of ``disk``."""
    parts = [reach(layout, (str(entry.get("digest")) for entry in image.entries)) for image in images]
    things = [disk.things_of(part) for part in parts]
    owners: dict[Thing, int] = {}
    for each in things:
        for thing in each:
            owners[thing] = owners.get(thing, 0) + 1
    users = [sum(digest in part.blobs for digest in uses.digests) for part in parts]
    used = [image for image, count in zip(images, users) if count]
    unused = blobs_of(layout, (image for image, count in zip(images, users) if not count))
    rows = []
    for each, count in zip(things, users):
        size = disk.bytes_of(each)
        unique = disk.bytes_of(thing for thing in each if owners[thing] == 1)
        rows.append(ImageUsage(size, size - unique, unique, count))
    reclaimable = disk.bytes_of(garbage(layout, disk, used, uses, unused))
    total = disk.bytes_of(disk.sizes)
    return Usage(tuple(rows), total, total - disk.bytes_of(owners), reclaimable)


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
