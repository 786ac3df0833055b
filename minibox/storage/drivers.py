"""The interface of storage drivers, and how to get one by name or container; `storage.snapshot` has the terms."""

from __future__ import annotations

import os

from minibox.errors import UsageError
from minibox.storage.snapshot import DRIVERS, container_directory, read_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from minibox.image.layer.unpack import LayerSource
    from minibox.storage.snapshot import Snapshot

    class Snapshotter(Protocol):
        """The interface of a storage driver. Making one touches nothing on disk."""

        driver: str
        root: str

        def is_unpacked(self, chain_ids: tuple[str, ...]) -> bool:
            """Tell whether `prepare` can use these layers."""

        def unpack(self, sources: Sequence[LayerSource], on_progress: Callable[[str], None] | None = None) -> None:
            """Unpack those layers of an image that aren't unpacked yet.

            Other processes may do the same at the same time, and it may be killed: a layer that exists is complete.

            Args:
                sources: all layers of the image, bottom first; see `minibox.image.store.ImageStore.layer_sources`.
                    Their blobs may still be downloading.
                on_progress: called with the chain ID of each layer that was unpacked.

            Raises:
                StoreError: a layer is damaged, or there is no space to unpack it.
                Unsupported: the kernel or the file system doesn't support this driver, or a program is missing.
                MiniboxError: a blob can't be downloaded.
            """

        def describe(self, key: str, chain_ids: tuple[str, ...]) -> Snapshot:
            """Return what `prepare` would, without looking at the disk.

            For `minibox explain`, and for processes that let another one prepare.
            """

        def prepare(self, key: str, chain_ids: tuple[str, ...]) -> Snapshot:
            """Create the active snapshot ``key`` on unpacked layers, and record it.

            Nothing is mounted: the caller mounts the result in the container's mount namespace, so that a crash
            leaves no mount on the host.

            Raises:
                StoreError: ``key`` is taken, or the disk is full.
                Unsupported: the kernel or the file system doesn't support this driver.
            """

        def remove(self, key: str) -> None:
            """Remove the active snapshot ``key`` with the container's whole directory. It is no error if there is none.

            Raises:
                StoreError: the kernel refused.
            """

        def commit(self, key: str, chain_id: str, place: str, memory_fd: int = -1) -> None:
            """Make a layer ``chain_id`` of what the active snapshot ``key`` has on top of its layers.

            Nobody may write to the snapshot meanwhile. The layer appears complete or not at all. It isn't synced to
            disk.

            Args:
                place: an empty working directory on the same file system.
                memory_fd: the directory of `memory_of`, if the container's files are there and not in the snapshot.

            Raises:
                OSError: the disk is full, or the kernel refused.
                Unsupported: like `prepare`.
            """

        def adopt(self, key: str, chain_id: str) -> None:
            """Make a layer ``chain_id`` of what the active snapshot ``key`` has on top of its layers, by renaming it.

            Nobody may use the snapshot any more; afterwards it can only be removed. If the layer exists already, this
            does nothing. It isn't synced to disk.

            Raises:
                OSError: the kernel refused.
            """

        def alias(self, chain_id: str, layer: str) -> None:
            """Give a layer of `adopt` its second name, the chain ID. If that exists already, this does nothing.

            Raises:
                OSError: the kernel refused.
            """

        def make_empty(self, chain_id: str) -> None:
            """Make a layer with nothing in it, unless it exists. Nobody else may do so at the same time.

            Raises:
                OSError: the disk is full, or the kernel refused.
            """

        def aliases(self) -> dict[str, str]:
            """Return the layers that are second names, with the layer that each means."""

        def open_lower(self, path: str) -> int:
            """Open one of a `Snapshot`'s ``lowers`` as a directory to read from; the caller closes it.

            Raises:
                OSError: it doesn't exist.
                Unsupported: this process may not mount it (erofs, as an ordinary user).
            """

        def layers(self) -> list[str]:
            """Return the chain IDs of all layers that this driver has, in no order."""

        def remove_layer(self, chain_id: str) -> None:
            """Remove a layer. It is no error if there is none. The caller knows that nothing uses it.

            Raises:
                StoreError: the kernel refused.
            """

        def layer_bytes(self, chain_id: str) -> int:
            """Return the disk space of a layer, without the layers below it; 0 if it doesn't exist.

            `remove_layer` frees it once no other layer uses it.
            """

        def snapshot_bytes(self, key: str) -> int:
            """Return the disk space of an active snapshot, without what it shares with its layers."""


def snapshotter(root: str, driver: str = "") -> Snapshotter:
    """Return the storage driver of that name under ``root``; "" for the default, overlay.

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


def snapshotter_of(root: str, key: str) -> Snapshotter:
    """Return the driver that a container was made with. If its record is lost, tell from its directory."""
    found = read_record(root, key)
    return snapshotter(root, found[0] if found else _driver_by_look(container_directory(root, key)))


def _driver_by_look(directory: str) -> str:
    from minibox.storage.btrfs import is_subvolume

    tree = f"{directory}/rootfs"
    return "btrfs" if is_subvolume(tree) else "copy" if os.path.isdir(tree) else ""
