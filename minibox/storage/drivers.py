"""The storage drivers behind one protocol, by name and by container; see `minibox.storage.snapshot` for the words."""

from __future__ import annotations

import os

from minibox.errors import UsageError
from minibox.storage.snapshot import DRIVERS, container_directory, read_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from minibox.image.layer import LayerSource
    from minibox.storage.snapshot import Snapshot

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


def snapshotter_of(root: str, key: str) -> Snapshotter:
    """The driver that a container was made with, whatever the default is now; by a look where its record is lost."""
    found = read_record(root, key)
    return snapshotter(root, found[0] if found else _driver_by_look(container_directory(root, key)))


def _driver_by_look(directory: str) -> str:
    from minibox.storage.btrfs import is_subvolume

    tree = f"{directory}/rootfs"
    return "btrfs" if is_subvolume(tree) else "copy" if os.path.isdir(tree) else ""
