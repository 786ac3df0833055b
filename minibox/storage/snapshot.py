"""Snapshots: what a container's root file system is made of, and the record of it. On the hot path.

Terms:

*committed* snapshot
    Read-only: an unpacked layer. Its name is the chain ID of a stack of layers, ``sha256:<hex>``.
*active* snapshot
    Writable, and belongs to one container. Its ``key`` is the container's id.
``chain_ids``
    The committed snapshots of an image that an active one is based on, bottom first, as in
    `minibox.image.layout.image.ResolvedImage`.

On disk, under ``root``. Each driver has its own directory for layers, so that you can use all of them side by side:

    layers/<hex>/diff         overlay: one layer, with whiteouts in overlayfs's form
    erofs/<hex>.erofs         erofs: the same, as a read-only file system in a file
    btrfs/<hex>, copy/<hex>   btrfs, copy: the merged tree of a layer and all below it
    containers/<key>/snapshot the container's driver and its chain IDs, bottom first
    containers/<key>/upper    overlay, erofs: what the container wrote, in overlayfs's form
    containers/<key>/rootfs   btrfs, copy: the container's whole tree
    build/layers/<driver>-<hex>  an empty file: keep this layer for `minibox build`
    containers/<key>/memory   a symlink: the container's files are in memory and not in upper; while it runs, the link
                              leads to its upper and work through a descriptor of its owner

`unpack` makes layers from blobs whose digests it verifies. `commit` makes layers from a container that the calling
program
prepared: these have no blob, and are removed when their owner ends.
"""

from __future__ import annotations

import os
from errno import ENOSPC

from minibox.base import damage
from minibox.base.codec import FileKind
from minibox.base.files import closing, names_in, replace_link
from minibox.base.shape import long_id, path_part
from minibox.errors import StoreError, Unreadable, Unsupported
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.image.layer.owners import Owners

DRIVERS = ("overlay", "btrfs", "erofs", "copy")
RECORD = "snapshot"
IN_MEMORY = "memory"
KEPT = "build/layers"
CHAIN_ID = "sha256:"


def driver_name(value: object) -> bool:
    """A shape: the name of a storage driver."""
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
    """An active snapshot: what to mount, or to compare.

    Attributes:
        kind: how ``lowers`` and ``upper`` make a root file system. "overlay": overlayfs stacks these directories.
            "erofs": the same, but mount each lower, an EROFS image, first. "tree": ``upper`` is the whole tree, and
            ``lowers`` is the one tree that it was cloned from.
        lowers: absolute paths, topmost first.
        upper: absolute path of the upperdir, with ``work`` beside it, or of the tree.
        below: more overlays below the root: where each is mounted, the directory of the host that it is stacked on, the
            directory with its ``upper`` and ``work``, and attributes of mount_setattr(2). Only with the host's own files.
        of_host: the files are the host's own, its /etc/hosts and the like, too.
    """

    kind: str
    lowers: tuple[str, ...]
    upper: str
    below: tuple[tuple[str, str, str, int], ...] = ()
    of_host: bool = False


def container_directory(root: str, key: str) -> str:
    """Return the directory of a container.

    Raises:
        StoreError: ``key`` can't be a container's id.
    """
    if not key or "/" in key or key in (".", "..") or "\0" in key:
        raise StoreError(f"{key!r} is not a container's id")
    return f"{root}/containers/{key}"


def write_record(directory: str, driver: str, chain_ids: tuple[str, ...]) -> None:
    """Record in a container's directory which layers its snapshot uses. From then on they count as in use.

    Raises:
        FileExistsError: the container has a snapshot already.
    """
    with closing(os.open(f"{directory}/{RECORD}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)) as fd:
        data = SNAPSHOT.encode({"Driver": driver, "ChainIds": list(chain_ids)})
        if os.write(fd, data) != len(data):
            raise OSError(ENOSPC, os.strerror(ENOSPC))


def read_record(root: str, key: str) -> tuple[str, tuple[str, ...]] | None:
    """Return a container's driver and its chain IDs, bottom first; None if it has no snapshot.

    If the record can't be read, report that (`base.damage`) and return None.

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
    """Record that a container's files are in memory and not in its active snapshot.

    Args:
        fd: this process's descriptor of the directory with ``upper`` and ``work``; -1 if there is none yet.
    """
    replace_link(f"{container_directory(root, key)}/{IN_MEMORY}", f"/proc/{os.getpid()}/fd/{fd}")


def memory_of(root: str, key: str) -> str:
    """Return the directory with ``upper`` and ``work`` if a container's files are in memory; "" if they are on disk."""
    try:
        return os.readlink(f"{container_directory(root, key)}/{IN_MEMORY}")
    except OSError:
        return ""


def memory_owners(fd: int) -> Owners:
    """Return the owners of files in memory. Nothing is id-mapped there, and ``work`` belongs to the container's root.

    Args:
        fd: the directory of `memory_of`.
    """
    from minibox.image.layer.owners import Owners

    status = os.stat("work", dir_fd=fd)
    return Owners((status.st_uid, status.st_gid))


def lost_memory(key: str) -> Unsupported:
    """Return the error that a container's files can't be read because they were in memory."""
    return Unsupported(
        f"the files that container {key[:12]} writes are in memory (--disk) and gone when it ends",
        "while it runs, minibox cp copies files out of it; commit, diff and export work during a minibox run",
    )


def layers_in_use(root: str) -> set[tuple[str, str]]:
    """Return the driver and chain ID of all layers that containers use, whether they run or not."""
    records = [found for key in names_in(f"{root}/containers") if (found := read_record(root, key))]
    return {(driver, chain_id) for driver, chain_ids in records for chain_id in chain_ids}


def keep_layer(root: str, driver: str, chain_id: str) -> None:
    """Keep a layer, even if neither an image nor a container needs it. Call this before the layer exists.

    Raises:
        OSError: the disk is full, or the kernel refused.
    """
    os.makedirs(f"{root}/{KEPT}", 0o700, exist_ok=True)
    os.close(os.open(kept_path(root, driver, chain_id), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def kept_path(root: str, driver: str, chain_id: str) -> str:
    """Return the path of the mark that `keep_layer` makes."""
    return f"{root}/{KEPT}/{driver}-{chain_id[7:]}"


def release_layer(root: str, driver: str, chain_id: str) -> None:
    """Don't keep a layer of `keep_layer` any more. It is no error if it wasn't kept."""
    try:
        os.unlink(kept_path(root, driver, chain_id))
    except FileNotFoundError:
        pass


def kept_layers(root: str) -> set[tuple[str, str]]:
    """Return the driver and chain ID of all layers of `keep_layer`, whether they exist or not."""
    return layers_named(f"{root}/{KEPT}")


def layers_named(directory: str) -> set[tuple[str, str]]:
    """Return the driver and chain ID of all layers that ``directory`` has a file ``DRIVER-HEX`` for."""
    found = [name.partition("-") for name in names_in(directory)]
    return {(driver, f"sha256:{digits}") for driver, _, digits in found if driver in DRIVERS and long_id(digits)}
