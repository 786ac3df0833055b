"""Storage drivers: who gives a container a root file system of its own on top of an image's layers.

Words, before the interface:

*committed* snapshot
    Read-only. Its name is the chain ID of a stack of layers, ``sha256:<hex>``: an unpacked layer.
*active* snapshot
    Writable, of one container. Its ``key`` is the container's id.
``chain_ids``
    What a snapshot stands on: the committed snapshots of an image, bottom first, as
    `minibox.image.store.ResolvedImage` has them.

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
from minibox.errors import StoreError, Unreadable, Unsupported, UsageError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from minibox.image.layer import LayerSource
    from minibox.image.owners import Owners

    class Snapshotter(Protocol):
        """What the engine asks of a storage driver. Making one touches nothing on disk."""

        driver: str
        root: str

        def is_unpacked(self, chain_ids: tuple[str, ...]) -> bool:
            """Whether `prepare` has all that it needs of these layers."""

        def unpack(self, sources: Sequence[LayerSource], on_progress: Callable[[str], None] | None = None) -> None:
            """Unpack the layers of an image that are not yet.

            Safe beside others who do the same, and when killed: a layer that is there is whole.

            Args:
                sources: all layers of the image, bottom first; `minibox.image.store.ImageStore.layer_sources`. Their
                    blobs may still be coming.
                on_progress: called with the chain ID of each layer that was unpacked.

            Raises:
                StoreError: a layer is damaged, or there is no space to unpack it.
                Unsupported: the kernel, the file system or a missing program can't do this driver.
                MiniboxError: who brings a blob has failed.
            """

        def describe(self, key: str, chain_ids: tuple[str, ...]) -> Snapshot:
            """What `prepare` returns, without a look at the disk: for `minibox explain`, and by who can't prepare
            in his own process."""

        def prepare(self, key: str, chain_ids: tuple[str, ...]) -> Snapshot:
            """Create the active snapshot ``key`` on layers that are unpacked, and record it.

            Nothing is mounted: the caller mounts what it gets in the container's mount namespace,
            so that a crash leaves no mount on the host.

            Raises:
                StoreError: ``key`` is taken, or the disk is full.
                Unsupported: the kernel or the file system can't do this driver.
            """

        def remove(self, key: str) -> None:
            """Remove the active snapshot ``key`` with the container's whole directory; no error when there is none.

            Raises:
                StoreError: the kernel refused.
            """

        def commit(self, key: str, chain_id: str, place: str, memory_fd: int = -1) -> None:
            """Make of what the active snapshot ``key`` has on top of its layers, and nobody writes to meanwhile, a
            layer ``chain_id``: there whole or not at all. It isn't synced to the disk.

            Args:
                place: an empty directory on the same file system, to work in.
                memory_fd: of `memory_of`, opened, where that has what the snapshot would.

            Raises:
                OSError: the disk is full, or the kernel refused.
                Unsupported: as `prepare`.
            """

        def open_lower(self, path: str) -> int:
            """A directory descriptor of one of a `Snapshot`'s ``lowers``, to read below; the caller closes it.

            Raises:
                OSError: it isn't there.
                Unsupported: this process may not mount it (erofs, an ordinary user).
            """

        def layers(self) -> list[str]:
            """The chain IDs of all layers that this driver has, in no order."""

        def remove_layer(self, chain_id: str) -> None:
            """Remove a layer; no error when there is none. The caller knows that nothing stands on it.

            Raises:
                StoreError: the kernel refused.
            """

        def layer_bytes(self, chain_id: str) -> int:
            """What a layer takes of the disk beyond those below it; 0 when it isn't there.

            It is given back by `remove_layer` when no layer stands on it any more.
            """

        def snapshot_bytes(self, key: str) -> int:
            """What an active snapshot takes of the disk, beyond what it shares with its layers."""


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


def snapshotter(root: str, driver: str = "") -> Snapshotter:
    """The storage driver of that name under ``root``; "" for the default, overlay.

    Raises:
        UsageError: there is no such driver.
    """
    if driver in ("", "overlay"):
        from minibox.storage.overlay import Overlay

        return Overlay(root)
    if driver == "btrfs":
        from minibox.storage.btrfs import Btrfs

        return Btrfs(root)
    if driver == "erofs":
        from minibox.storage.erofs import Erofs

        return Erofs(root)
    if driver == "copy":
        from minibox.storage.copy import Copy

        return Copy(root)
    raise UsageError(f"unknown storage driver {driver!r}", f"one of {', '.join(DRIVERS)}")


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


def snapshotter_of(root: str, key: str) -> Snapshotter:
    """The driver that a container was made with, whatever the default is now; by a look where its record is lost."""
    found = read_record(root, key)
    return snapshotter(root, found[0] if found else _driver_by_look(container_directory(root, key)))


def _driver_by_look(directory: str) -> str:
    from minibox.storage.btrfs import is_subvolume

    tree = f"{directory}/rootfs"
    return "btrfs" if is_subvolume(tree) else "copy" if os.path.isdir(tree) else ""


def layers_in_use(root: str) -> set[tuple[str, str]]:
    """Driver and chain ID of all layers that containers stand on, running or ended."""
    try:
        keys = os.listdir(f"{root}/containers")
    except (FileNotFoundError, NotADirectoryError):
        return set()
    records = [found for key in keys if (found := read_record(root, key))]
    return {(driver, chain_id) for driver, chain_ids in records for chain_id in chain_ids}
