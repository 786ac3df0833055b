"""Disk usage (`system df`), and `system prune`, which frees what nothing needs."""

from __future__ import annotations

import fcntl
import os

from minibox.base import damage
from minibox.docker_words.filters import lets_prune
from minibox.engine.container import collection, removal
from minibox.engine.host.user_namespace import run_inside
from minibox.engine.resources import volumes as volume_store
from minibox.engine.resources.image_usage import usage
from minibox.engine.state import claim
from minibox.engine.state import containers as state
from minibox.engine.upkeep.images import ImageRow, Removed, look_at_disk, uses
from minibox.engine.upkeep.images import prune as prune_images
from minibox.engine.upkeep.networks import prune as prune_networks
from minibox.errors import ContainerNotFound, IndexDamaged, UsageError
from minibox.image.layer.lock import collect_unfinished
from minibox.image.layout.inventory import inventory
from minibox.image.layout.layout import Layout
from minibox.record import record, replace
from minibox.storage.drivers import snapshotter_of
from minibox.storage.usage import file_bytes, tree_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minibox.base.home import Home
    from minibox.docker_words.filters import Filter
    from minibox.engine.container.snapshots import SnapshotRecord
    from minibox.engine.resources.image_usage import Disk
    from minibox.engine.resources.volumes import StoredVolume

OF_SNAPSHOTS = ("rootfs", "upper")  # counted by `Snapshotter.snapshot_bytes`, since layers may share blocks


@record
class Share:
    """The disk space of one type; ``active`` counts what is in use."""

    type: str
    total: int
    active: int
    size_bytes: int
    reclaimable_bytes: int


@record
class VolumeUsage:
    """A named volume and its disk space."""

    volume: StoredVolume
    size_bytes: int


@record
class SnapshotUsage:
    """A file system frozen by a program, and its disk space; ``held``: a program or another snapshot uses it."""

    frozen: SnapshotRecord
    size_bytes: int
    held: bool


@record
class DiskUsage:
    """The output of `system df`.

    Attributes:
        images: a row for each name of each image.
        containers: their states, with ``SizeRw``, the bytes that each has written.
        leftover_bytes: the size of blobs and layers that belong to no image.
    """

    shares: tuple[Share, ...]
    images: tuple[ImageRow, ...]
    containers: tuple[dict[str, Any], ...]
    volumes: tuple[VolumeUsage, ...]
    snapshots: tuple[SnapshotUsage, ...]
    leftover_bytes: int

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values, sizes in bytes."""
        fields = ("type", "total", "active", "size_bytes", "reclaimable_bytes")
        return {
            "shares": [{field: getattr(share, field) for field in fields} for share in self.shares],
            "images": [
                {
                    "name": row.name.familiar if row.name else "",
                    "id": row.image.id,
                    "size_bytes": row.usage.size_bytes,
                    "shared_bytes": row.usage.shared_bytes,
                    "unique_bytes": row.usage.unique_bytes,
                    "blob_bytes": row.usage.blob_bytes,
                    "containers": row.usage.containers,
                }
                for row in self.images
            ],
            "containers": list(self.containers),
            "volumes": [
                {"name": each.volume.name, "size_bytes": each.size_bytes, "containers": list(each.volume.users)}
                for each in self.volumes
            ],
            "snapshots": [
                {
                    "id": each.frozen.id,
                    "image": each.frozen.image.reference,
                    "driver": each.frozen.driver,
                    "size_bytes": each.size_bytes,
                    "held": each.held,
                }
                for each in self.snapshots
            ],
            "leftover_bytes": self.leftover_bytes,
        }


def disk_usage(home: Home) -> DiskUsage:
    """Measure everything that minibox keeps below ``root``.

    Raises:
        StoreError: the disk can't be read.
    """
    from minibox.engine.trial import kept

    containers = [{**each, "SizeRw": written_bytes(home.root, each["Id"])} for each in collection.list_containers(home)]
    layout = Layout(home.root)
    try:
        images = inventory(layout)
    except IndexDamaged as error:
        damage.tell(error)
        images = []
    trials = [tree_bytes(kept.place(home.root, name)) for name in kept.names(home.root)]
    snapshots, disk = _without_snapshots(home.root, look_at_disk(home.root))
    taken = usage(layout, disk, images, uses(home.root))
    rows = [ImageRow(image, name, used) for image, used in zip(images, taken.images) for name in image.names or (None,)]
    stored = volume_store.volumes(home.root)
    volumes = [
        VolumeUsage(volume, size)
        for volume, size in zip(stored, volume_store.sizes([os.path.dirname(each.path) for each in stored]))
    ]
    ended = [each for each in containers if each["Status"] != "running"]
    shares = (
        Share(
            "Images", len(images), sum(used.containers > 0 for used in taken.images),
            taken.size_bytes, taken.reclaimable_bytes,
        ),
        Share("Image Blobs", taken.blobs, taken.used_blobs, taken.blob_bytes, taken.reclaimable_blob_bytes),
        Share(
            "Containers", len(containers), len(containers) - len(ended),
            sum(each["SizeRw"] for each in containers), sum(each["SizeRw"] for each in ended),
        ),
        Share(
            "Local Volumes", len(volumes), sum(bool(each.volume.users) for each in volumes),
            sum(each.size_bytes for each in volumes), sum(each.size_bytes for each in volumes if not each.volume.users),
        ),
        Share("Trials", len(trials), 0, sum(trials), sum(trials)),
        Share(
            "Snapshots", len(snapshots), sum(each.held for each in snapshots),
            sum(each.size_bytes for each in snapshots), sum(each.size_bytes for each in snapshots if not each.held),
        ),
    )  # fmt: skip
    return DiskUsage(shares, tuple(rows), tuple(containers), tuple(volumes), tuple(snapshots), taken.leftover_bytes)


def _without_snapshots(root: str, disk: Disk) -> tuple[list[SnapshotUsage], Disk]:
    """Separate the frozen file systems from the rest, since their layers belong to no image."""
    from minibox.engine.container.snapshots import all_snapshots, is_in_use

    sizes, found = dict(disk.sizes), []
    for frozen, held in all_snapshots(root):
        size_bytes = sizes.pop((frozen.driver, frozen.image.chain_ids[-1]), 0)
        found.append(SnapshotUsage(frozen, size_bytes, held or is_in_use(root, frozen.id)))
    return found, replace(disk, sizes=sizes)


def written_bytes(root: str, container_id: str) -> int:
    """Return the bytes that a container has written, including its anonymous volumes."""
    written = snapshotter_of(root, container_id).snapshot_bytes
    volumes = f"{root}/containers/{container_id}/volumes"

    def look() -> int:
        return written(container_id) + (tree_bytes(volumes) if os.path.isdir(volumes) else 0)

    return run_inside(look) if os.geteuid() else look()


@record
class Pruned:
    """What `system prune` removed: container ids, names of networks and volumes, images; and bytes freed on disk."""

    containers: tuple[str, ...]
    networks: tuple[str, ...]
    volumes: tuple[str, ...]
    images: Removed
    freed_bytes: int


def prune(home: Home, *, everything: bool = False, volumes: bool = False, filters: Sequence[Filter] = ()) -> Pruned:
    """Remove ended containers, unused networks, images as in `images.prune`, and abandoned downloads.

    Args:
        volumes: also remove unused volumes with a generated name.

    Raises:
        UsageError: ``until`` with ``volumes``: the time of their last use is unknown.
        StoreBusy, StoreError: as in `images.prune`.
    """
    if volumes and any(each.key == "until" for each in filters):
        raise UsageError("the filter until can't be applied to volumes", "leave out --volumes, or --filter until=...")
    gone, freed = prune_containers(home, filters=filters)
    networks = prune_networks(home, filters)
    names: list[str] = []
    if volumes:
        names, freed_by_volumes = volume_store.prune(home, filters=filters)
        freed += freed_by_volumes
    images = prune_images(home, everything=everything, filters=filters)
    freed += images.freed_bytes + _remove_unfinished(home.root)
    return Pruned(tuple(gone), tuple(networks), tuple(names), images, freed)


def prune_containers(home: Home, *, filters: Sequence[Filter] = ()) -> tuple[list[str], int]:
    """Remove the containers that aren't running and pass ``filters``; return their ids and the bytes that were freed.

    A damaged container stays: it can't be filtered, and may hold something of value.
    """
    gone, freed = [], 0
    for each in collection.list_containers(home):
        if (
            each["Status"] in (*state.ALIVE, state.DAMAGED)
            or claim.is_live(home.root, each["Id"])
            or not lets_prune(each.get("Labels") or {}, each.get("Created") or None, filters)
        ):
            continue
        size_bytes = _all_bytes(home.root, each["Id"])
        try:
            removal.remove(home, each["Id"], durable=False)
        except (UsageError, ContainerNotFound):
            continue  # it was just started or removed
        freed += size_bytes
        gone.append(each["Id"])
    if gone:
        removal.keep_removed(home.root)
    return gone, freed


def _all_bytes(root: str, container_id: str) -> int:
    """Return the disk space of a container: what it wrote, its log, and our files about it."""
    rootfs = snapshotter_of(root, container_id).snapshot_bytes
    directory = f"{root}/containers/{container_id}"

    def look() -> int:
        others = [each for each in os.listdir(directory) if each not in OF_SNAPSHOTS]
        return rootfs(container_id) + sum(file_bytes(f"{directory}/{each}") for each in others)

    try:
        return run_inside(look) if os.geteuid() else look()
    except OSError:
        return 0  # it was just removed


def _remove_unfinished(root: str) -> int:
    """Remove abandoned files in ``tmp``; return the bytes that were freed."""
    freed = 0
    try:
        collect_unfinished(f"{root}/tmp")
        names = os.listdir(f"{root}/tmp")
    except FileNotFoundError:
        return 0
    for name in names:
        path = f"{root}/tmp/{name}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # a directory, or already gone
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size_bytes = os.fstat(fd).st_blocks * 512
            os.unlink(path)
            freed += size_bytes
        except OSError:
            continue
        finally:
            os.close(fd)
    return freed
