"""The common part of the drivers `btrfs` and `copy`: whole trees that are cloned, without overlayfs.

On disk under ``root``:

    <driver>/<hex>             the merged tree of a layer and all below it; <hex> is its chain ID
    <driver>/<hex>.bytes       the disk space that the layer adds to those below: the target of a symlink
    <driver>/unfinished-<hex>  a layer that is being made; whoever makes it holds the lock <driver>.lock
    containers/<key>/rootfs    the container's tree, cloned from the tree of its topmost layer

Files keep the image's own ids, as with overlay: the container's root is an id-mapped bind mount.
"""

from __future__ import annotations

import errno
import os

from minibox.errors import StoreError, Unsupported, kernel_says, suppress
from minibox.linux.removal import remove_directory
from minibox.storage.layers import chain_ids_in, link_layer, links_in, make_layers, move_layer, remove_at_once
from minibox.storage.overlay import FULL_HINT
from minibox.storage.snapshot import NO_LAYER, Snapshot, container_directory, read_record, write_record
from minibox.storage.usage import added_bytes, own_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minibox.image.layer.unpack import LayerSource

NOTE_SUFFIX = ".bytes"
OTHER_HINT = "choose another: --storage-driver overlay"


class Trees:
    """Keeps snapshots as whole trees; see `minibox.storage.drivers.Snapshotter`. Drivers clone and remove the trees."""

    driver = ""
    hint = OTHER_HINT  # shown when the driver can't work here

    def __init__(self, root: str) -> None:
        self.root = root

    # ---- for drivers to define -------------------------------------------------------------------

    def _begin_layer(self, parent: str, path: str) -> None:
        """Make the writable tree ``path``: a clone of the layer ``parent``, or empty if that is ""."""
        raise NotImplementedError

    def _seal_layer(self, path: str) -> None:
        """Protect a finished layer."""

    def _clone(self, layer: str, path: str) -> None:
        """Make the writable tree ``path`` a clone of a layer."""
        raise NotImplementedError

    def _remove_tree(self, path: str) -> None:
        """Remove a tree, if there is a quicker way than file by file."""

    def refusal(self, directory: str) -> str:
        """Return why this driver can't work in a directory, or ""."""
        return ""

    # ---- Snapshotter ----------------------------------------------------------------------------

    def is_unpacked(self, chain_ids: tuple[str, ...]) -> bool:
        # The topmost tree includes all layers below.
        return not chain_ids or os.access(self.layer_path(chain_ids[-1]), os.F_OK)

    def unpack(self, sources: Sequence[LayerSource], on_progress: Callable[[str], None] | None = None) -> None:
        if not self.is_unpacked(tuple(source.chain_id for source in sources)):
            make_layers(
                f"{self.root}/{self.driver}",
                sources,
                place=self.layer_path,
                make=self._make_layer,
                remove_first=self._remove_tree,
                on_progress=on_progress,
            )

    def _make_layer(self, source: LayerSource, path: str, below: str) -> None:
        from minibox.image.layer.size import note
        from minibox.image.layer.unpack import unpack

        below = _resolved(below)
        try:
            self._begin_layer(below, path)
            if not below:
                os.chmod(path, 0o755)  # whatever the umask is: this becomes the container's root directory
            with open(source.blob_path, "rb", buffering=0) as blob:
                found = unpack(blob, path, diff_id=source.diff_id, form="apply" if below else "overlay")
            note(self.root, source.chain_id, found.file_bytes)
            self._note_bytes(source.chain_id, added_bytes(path, below))
            self._seal_layer(path)
        except OSError as error:
            raise self._error(f"unpack layer {source.diff_id}", error) from error

    def _note_bytes(self, chain_id: str, count: int) -> None:
        """Record the disk space that a layer adds. Later it shares blocks with layers above, so we can't measure it."""
        note = self.layer_path(chain_id) + NOTE_SUFFIX
        with suppress(FileNotFoundError):
            os.unlink(note)  # left by a process that was killed before the layer had its name
        os.symlink(str(count), note)

    def describe(self, key: str, chain_ids: tuple[str, ...]) -> Snapshot:
        if not chain_ids:
            raise StoreError("prepare a root file system of 0 layers", NO_LAYER)
        return Snapshot("tree", (_resolved(self.layer_path(chain_ids[-1])),), f"{self.root}/containers/{key}/rootfs")

    def prepare(self, key: str, chain_ids: tuple[str, ...]) -> Snapshot:
        path, snapshot = container_directory(self.root, key), self.describe(key, chain_ids)
        try:
            os.makedirs(path, 0o700, exist_ok=True)
            write_record(path, self.driver, chain_ids)
            self._clone(snapshot.lowers[0], snapshot.upper)
        except FileExistsError as error:
            raise StoreError(f"prepare {path}: the container has a root file system already") from error
        except OSError as error:
            raise self._error(f"prepare {path}", error) from error
        return snapshot

    def commit(self, key: str, chain_id: str, place: str, memory_fd: int = -1) -> None:
        assert memory_fd < 0, "a limited disk is an overlay's upper layer"
        self._clone(f"{container_directory(self.root, key)}/rootfs", f"{place}/layer")
        os.rename(f"{place}/layer", self.layer_path(chain_id))
        self._seal_layer(self.layer_path(chain_id))  # after the rename: btrfs can't move a sealed one

    def adopt(self, key: str, chain_id: str) -> None:
        path = self.layer_path(chain_id)
        below = read_record(self.root, key)
        tree = f"{container_directory(self.root, key)}/rootfs"
        count = added_bytes(tree, _resolved(self.layer_path(below[1][-1]))) if below else own_bytes(tree)
        move_layer(tree, path)
        if not os.path.islink(path + NOTE_SUFFIX):
            self._note_bytes(chain_id, count)
        self._seal_layer(path)

    def alias(self, chain_id: str, layer: str) -> None:
        link_layer(self.layer_path(chain_id), layer[7:])

    def make_empty(self, chain_id: str) -> None:
        path = self.layer_path(chain_id)
        if os.path.isdir(path):
            return
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        self._begin_layer("", path)
        os.chmod(path, 0o755)
        self._note_bytes(chain_id, 0)
        self._seal_layer(path)

    def aliases(self) -> dict[str, str]:
        return links_in(f"{self.root}/{self.driver}")

    def remove(self, key: str) -> None:
        path = container_directory(self.root, key)
        self._remove_tree(f"{path}/rootfs")
        remove_directory(path)

    def open_lower(self, path: str) -> int:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def layers(self) -> list[str]:
        return chain_ids_in(f"{self.root}/{self.driver}")

    def remove_layer(self, chain_id: str) -> None:
        remove_at_once(f"{self.root}/{self.driver}", chain_id[7:], self._remove_tree)
        remove_directory(self.layer_path(chain_id) + NOTE_SUFFIX)

    def layer_bytes(self, chain_id: str) -> int:
        path = self.layer_path(chain_id)
        if os.path.islink(path):
            return 0
        try:
            return int(os.readlink(path + NOTE_SUFFIX)) if os.path.isdir(path) else 0
        except (OSError, ValueError):
            return own_bytes(path)

    def snapshot_bytes(self, key: str) -> int:
        return own_bytes(f"{container_directory(self.root, key)}/rootfs")

    def layer_path(self, chain_id: str) -> str:
        """Return the path of the tree of a layer and all below it."""
        return f"{self.root}/{self.driver}/{chain_id[7:]}"

    def _error(self, what: str, error: OSError) -> StoreError | Unsupported:
        if why := self.refusal(self.root):
            return Unsupported(f"use the storage driver {self.driver}: {why}", self.hint)
        hint = FULL_HINT if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        where = f" ({error.filename!r})" if error.filename else ""
        return StoreError(f"{what}{where}: {kernel_says(error)}", hint)


def _resolved(path: str) -> str:
    """Return the path of a layer's tree if ``path`` is a second name of it: a tree isn't opened through a symlink."""
    try:
        return f"{os.path.dirname(path)}/{os.readlink(path)}"
    except OSError:
        return path
