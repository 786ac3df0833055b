"""What everything takes of the disk, and giving back what nobody needs."""

from __future__ import annotations

import fcntl
import os
import time

from minibox.engine import ownership, removal
from minibox.engine.images import ImageRow, Removed, look_at_disk, uses
from minibox.engine.images import prune as prune_images
from minibox.engine.user_namespace import run_inside
from minibox.image.filters import parse_time
from minibox.image.inventory import inventory
from minibox.image.layout import Layout
from minibox.image.usage import usage
from minibox.record import record
from minibox.storage import snapshotter_of
from minibox.storage.usage import tree_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minibox.image.filters import Filter


@record
class Share:
    """What the things of one type take together; ``active`` are those in use."""

    type: str
    total: int
    active: int
    size_bytes: int
    reclaimable_bytes: int


@record
class VolumeUsage:
    """A named volume; ``links`` are the containers that have it, as far as is known."""

    name: str
    size_bytes: int
    links: int


@record
class DiskUsage:
    """What `system df` shows.

    Attributes:
        images: a row for each name of each image.
        containers: their states, with ``SizeRw``: bytes of what they wrote.
        leftover_bytes: of blobs and layers that belong to no image.
    """

    shares: tuple[Share, ...]
    images: tuple[ImageRow, ...]
    containers: tuple[dict[str, Any], ...]
    volumes: tuple[VolumeUsage, ...]
    leftover_bytes: int

    def as_json(self) -> dict[str, Any]:
        """All of it, sizes in bytes."""
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
                    "containers": row.usage.containers,
                }
                for row in self.images
            ],
            "containers": list(self.containers),
            "volumes": [{"name": each.name, "size_bytes": each.size_bytes} for each in self.volumes],
            "leftover_bytes": self.leftover_bytes,
        }


def disk_usage(*, root: str, runroot: str) -> DiskUsage:
    """Look at all that minibox keeps below ``root``.

    Raises:
        StoreError: index.json is damaged.
    """
    containers = [
        {**each, "SizeRw": written_bytes(root, each["Id"])}
        for each in removal.list_containers(root=root, runroot=runroot)
    ]
    layout = Layout(root)
    images = inventory(layout)
    taken = usage(layout, look_at_disk(root), images, uses(root))
    rows = [ImageRow(image, name, used) for image, used in zip(images, taken.images) for name in image.names or (None,)]
    volumes = _volumes(root, containers)
    ended = [each for each in containers if each["Status"] != "running"]
    shares = (
        Share(
            "Images", len(images), sum(used.containers > 0 for used in taken.images),
            taken.size_bytes, taken.reclaimable_bytes,
        ),
        Share(
            "Containers", len(containers), len(containers) - len(ended),
            sum(each["SizeRw"] for each in containers), sum(each["SizeRw"] for each in ended),
        ),
        Share(
            "Local Volumes", len(volumes), sum(each.links > 0 for each in volumes),
            sum(each.size_bytes for each in volumes), sum(each.size_bytes for each in volumes if not each.links),
        ),
    )  # fmt: skip
    return DiskUsage(shares, tuple(rows), tuple(containers), tuple(volumes), taken.leftover_bytes)


def written_bytes(root: str, container_id: str) -> int:
    """What a container wrote, with its anonymous volumes."""
    written = snapshotter_of(root, container_id).snapshot_bytes
    volumes = f"{root}/containers/{container_id}/volumes"

    def look() -> int:
        return written(container_id) + (tree_bytes(volumes) if os.path.isdir(volumes) else 0)

    return run_inside(look) if os.geteuid() else look()


def _volumes(root: str, containers: Sequence[dict[str, Any]]) -> list[VolumeUsage]:
    try:
        names = sorted(os.listdir(f"{root}/volumes"))
    except FileNotFoundError:
        return []
    used = [str(mount.get("Source", "")) for each in containers for mount in each.get("Mounts") or ()]

    def look() -> list[int]:
        return [tree_bytes(f"{root}/volumes/{name}") for name in names]

    sizes = run_inside(look) if os.geteuid() else look()
    return [
        VolumeUsage(name, size, sum(source.startswith(f"{root}/volumes/{name}/") for source in used))
        for name, size in zip(names, sizes)
    ]


@record
class Pruned:
    """What `system prune` removed: ids of containers, and images; ``freed_bytes`` of the disk together."""

    containers: tuple[str, ...]
    images: Removed
    freed_bytes: int


def prune(*, root: str, runroot: str, everything: bool = False, filters: Sequence[Filter] = ()) -> Pruned:
    """Remove containers that have ended, images as `images.prune`, and unfinished downloads that nobody goes on with.

    Raises:
        StoreBusy, StoreError: as `images.prune`.
    """
    freed, gone = 0, []
    for each in removal.list_containers(root=root, runroot=runroot):
        if each["Status"] == "running" or ownership.is_live(root, each["Id"]) or not _passes(each, filters):
            continue
        freed += written_bytes(root, each["Id"])
        removal.remove(each["Id"], root=root, runroot=runroot)
        gone.append(each["Id"])
    images = prune_images(root=root, runroot=runroot, everything=everything, filters=filters)
    freed += images.freed_bytes + _remove_unfinished(root)
    return Pruned(tuple(gone), images, freed)


def _passes(found: dict[str, Any], filters: Sequence[Filter]) -> bool:
    """Whether a container's state fits filters of images: its labels, and when it was made."""
    now_s = time.time()
    labels = found.get("Labels") or {}
    for each in filters:
        if each.key == "until":
            if (found.get("Created") or now_s) > parse_time(each.value, now_s):
                return False
            continue
        key, equals, value = each.value.partition("=")
        has = key in labels and (not equals or labels[key] == value)
        if has != (each.key == "label"):
            return False
    return True


def _remove_unfinished(root: str) -> int:
    """Remove files in ``tmp`` that nobody is writing; bytes that it freed."""
    freed = 0
    try:
        names = os.listdir(f"{root}/tmp")
    except FileNotFoundError:
        return 0
    for name in names:
        path = f"{root}/tmp/{name}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # a directory, or gone
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
