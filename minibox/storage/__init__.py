"""Snapshotters: who gives a container a file system of its own on top of an image's layers.

Words, before the interface:

*committed* snapshot
    Read-only. Its ``name`` is the chain ID of a stack of layers; unpacked image layers are
    committed snapshots.
*active* snapshot
    Writable, of one container. Its ``key`` is the container's id.
``parent``
    What a snapshot stands on: the directories of the committed snapshots below it, topmost first,
    as `minibox.image.store.ImageStore.lowerdirs` gives them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from minibox.storage.overlay import Snapshot

    class Snapshotter(Protocol):
        """What the engine asks of a storage driver."""

        def prepare(self, key: str, parent: tuple[str, ...]) -> Snapshot:
            """Create the active snapshot ``key`` on ``parent``.

            Nothing is mounted: the caller mounts what it gets in the container's mount namespace,
            so that a crash leaves no mount on the host.

            Raises:
                StoreError: ``key`` is taken, or the disk is full.
                Unsupported: the file system can't hold a snapshot.
            """

        def commit(self, key: str, name: str) -> str:
            """Turn the active snapshot ``key`` into the committed one ``name``; its directory.

            Raises:
                StoreError: there is no such snapshot, or ``name`` is taken.
            """

        def remove(self, key: str) -> None:
            """Remove the active snapshot ``key``; no error when there is none.

            Raises:
                StoreError: the kernel refused.
            """
