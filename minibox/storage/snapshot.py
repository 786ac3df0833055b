"""Snapshots: what a container's root file system stands on, and what is on record of it.

Words, before the interface:

*committed* snapshot
    Read-only. Its name is the chain ID of a stack of layers, ``sha256:<hex>``: an unpacked layer.
*active* snapshot
    Writable, of one container. Its ``key`` is the container's id.
``chain_ids``
    What a snapshot stands on: the committed snapshots of an image, bottom first, as
    `minibox.image.resolved.ResolvedImage` has them.

On disk, under ``root``; each driver has places of its own for layers, so that all can be used side by side:

    layers/<hex>/diff         overlay: one layer, whiteouts in overlayfs's form
    erofs/<hex>.erofs         erofs: the same as a read-only file system in a file
    btrfs/<hex>, copy/<hex>   btrfs, copy: the merged tree of a layer and all below it
    containers/<key>/snapshot which driver the container has, and its chain IDs, bottom first
    containers/<key>/upper    overlay, erofs: what the container wrote, in overlayfs's form
    containers/<key>/rootfs   btrfs, copy: the container's whole tree
    containers/<key>/memory   a symlink: what the container writes is in memory, and isn't in upper; while it runs under
                              its owner the link leads to its upper and work, as the owner's descriptor

Layers are made by `unpack`, from blobs whose digests are verified, and by `commit`, of a container that the calling
program has prepared: those have no blob, and go with their owner (`minibox.engine.snapshots`).
This is on the hot path.
"""

from __future__ import annotations

import os
from errno import ENOSPC

from minibox.base import damage
from minibox.base.codec import FileKind
from minibox.base.files import replace_link
from minibox.base.shape import path_part
from minibox.errors import StoreError, Unreadable, Unsupported
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.image.owners import Owners

DRIVERS = ("overlay", "btrfs", "erofs", "copy")
RECORD = "snapshot"
IN_MEMORY = "memory"
CHAIN_ID = "sha256:"


def driver_name(value: object) -> bool:
    """A shape."""
    return value in DRIVERS


def chain_id(value: object) -> bool:
    """A shape: ``sha256:<hex>``."""
    return isinstance(value, str) and value.startswith(CHAIN_ID) and path_part(value.removeprefix(CHAIN_ID))


def _before(data: bytes) -> dict[str, Any]:
    driver, *chain_ids = data.decode("ascii").split()
    return {"Driver": driver, "ChainIds": chain_ids}


SNAPSHOT = FileKind(RECORD, {"Driver": driver_name, "ChainIds": [chain_id]}, before=_before, indented=False)
NO_LAYER = "an image needs a layer"


@record
class Snapshot:
    """An active snapshot, for who mounts it and for who looks for what changed in it.

    Attributes:
        kind: how ``lowers`` and ``upper`` make a root file system: "overlay": directories, stacked by
            overlayfs; "erofs": the same, but each lower is an EROFS image to be mounted first;
            "tree": ``upper`` is all of it, and ``lowers`` the one tree that it began as.
        lowers: absolute paths, topmost first.
        upper: absolute path: the upperdir, with ``work`` beside it, or the tree.
    """

    kind: str
    lowers: tuple[str, ...]
    upper: str


def container_directory(root: str, key: str) -> str:
    """The directory of a container.

    Raises:
        StoreError: ``key`` can't be a container's id.
    """
    if not key or "/" in key or key in (".", "..") or "\0" in key:
        raise StoreError(f"{key!r} is no id of a container")
    return f"{root}/containers/{key}"


def write_record(directory: str, driver: str, chain_ids: tuple[str, ...]) -> None:
    """Note in a container's directory what its snapshot stands on: from then on these layers are in use.

    Raises:
        FileExistsError: the container has a snapshot already.
    """
    fd = os.open(f"{directory}/{RECORD}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        data = SNAPSHOT.encode({"Driver": driver, "ChainIds": list(chain_ids)})
        if os.write(fd, data) != len(data):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
    finally:
        os.close(fd)


def read_record(root: str, key: str) -> tuple[str, tuple[str, ...]] | None:
    """The driver and the chain IDs (bottom first) of a container; None when it has no snapshot.

    Where that can't be told, it is as if it had none, and who looks hears of it.

    Raises:
        StoreError: ``key`` can't be a container's id.
    """
    try:
        found = SNAPSHOT.read(f"{container_directory(root, key)}/{RECORD}")
    except OSError:
        return None
    except Unreadable as error:
        damage.tell(error)
        return None
    return found["Driver"], tuple(found["ChainIds"])


def note_in_memory(root: str, key: str, fd: int = -1) -> None:
    """Note that what a container writes is not in its active snapshot.

    Args:
        fd: of this process, for the directory with ``upper`` and ``work``; -1: there is none yet.
    """
    replace_link(f"{container_directory(root, key)}/{IN_MEMORY}", f"/proc/{os.getpid()}/fd/{fd}")


def memory_of(root: str, key: str) -> str:
    """The path of a container's own layer, with ``upper`` and ``work``, where it is in memory; "" where it is on disk."""
    try:
        return os.readlink(f"{container_directory(root, key)}/{IN_MEMORY}")
    except OSError:
        return ""


def memory_owners(fd: int) -> Owners:
    """Whose the files of a layer in memory are: nothing is id-mapped there, and ``work`` is the root's of the container.

    Args:
        fd: of `memory_of`, opened.
    """
    from minibox.image.owners import Owners

    status = os.stat("work", dir_fd=fd)
    return Owners((status.st_uid, status.st_gid))


def lost_memory(key: str) -> Unsupported:
    """What a container has written can't be had."""
    return Unsupported(
        f"what container {key[:12]} writes is in memory (--disk), and gone when it ends",
        "while it runs, minibox cp copies files out of it; and commit, diff and export work beside a minibox run",
    )


def layers_in_use(root: str) -> set[tuple[str, str]]:
    """Driver and chain ID of all layers that containers stand on, running or ended."""
    try:
        keys = os.listdir(f"{root}/containers")
    except (FileNotFoundError, NotADirectoryError):
        return set()
    records = [found for key in keys if (found := read_record(root, key))]
    return {(driver, chain_id) for driver, chain_ids in records for chain_id in chain_ids}
