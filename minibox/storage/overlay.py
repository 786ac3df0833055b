"""Snapshots as directories for overlayfs. Nothing is mounted here.

On disk under ``root``. Files keep the image's own ids; id-mapped mounts map them for a user namespace, so nothing is
chowned:

    containers/<key>/upper   what the container wrote; belongs to the user that made it, mode 0755
    containers/<key>/work    overlayfs's own
    layers/<hex>/diff        a layer; <hex> is its chain ID

Source: https://docs.kernel.org/filesystems/overlayfs.html. This is on the hot path.
"""

from __future__ import annotations

import errno
import os

from minibox.base.files import replace_link
from minibox.errors import StoreError, Unsupported, kernel_says, suppress
from minibox.storage.snapshot import Snapshot, container_directory, memory_owners, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minibox.image.layer.unpack import LayerSource

# The most lower layers of one mount: OVL_MAX_STACK of fs/overlayfs (kernel 4.0 and later).
LOWERDIRS_MAX = 500

# File systems without whiteouts or xattrs, or whose changes overlayfs can't see.
UNSUITABLE_UPPER = frozenset(
    "overlay aufs ecryptfs nfs nfs4 cifs smb3 9p vfat msdos exfat ntfs ntfs3 fuseblk iso9660 squashfs erofs".split()
)
FULL_HINT = "free some space, or set --root to a directory on another disk"
ELSEWHERE_HINT = "set --root to a directory on ext4, xfs or btrfs, or use --storage-driver copy"


class Overlay:
    """Keeps snapshots for overlayfs under ``root``; see `minibox.storage.drivers.Snapshotter`."""

    __slots__ = ("root",)
    driver = "overlay"

    def __init__(self, root: str) -> None:
        self.root = root

    def is_unpacked(self, chain_ids: tuple[str, ...]) -> bool:
        for chain_id in chain_ids:
            if not os.access(self.layer_path(chain_id), os.F_OK):
                return False
        return True

    def unpack(self, sources: Sequence[LayerSource], on_progress: Callable[[str], None] | None = None) -> None:
        from minibox.image.layer.unpack import unpack_layers

        unpack_layers(self.root, sources, on_progress=on_progress)

    def describe(self, key: str, chain_ids: tuple[str, ...]) -> Snapshot:
        lowers = tuple([self.layer_path(chain_id) for chain_id in reversed(chain_ids)])
        return Snapshot(self.driver, lowers, f"{self.root}/containers/{key}/upper")

    def prepare(self, key: str, chain_ids: tuple[str, ...]) -> Snapshot:
        if not 0 < len(chain_ids) <= LOWERDIRS_MAX:
            raise StoreError(
                f"prepare a root file system of {len(chain_ids)} layers: overlayfs takes 1 to {LOWERDIRS_MAX}",
                "flatten the image" if chain_ids else None,
            )
        path, snapshot = container_directory(self.root, key), self.describe(key, chain_ids)
        try:
            self._check_file_system()
            os.makedirs(path, mode=0o700, exist_ok=True)
            write_record(path, self.driver, chain_ids)
            os.mkdir(f"{path}/upper")
            os.mkdir(f"{path}/work")
            self._adopt_root(snapshot)
        except FileExistsError as error:
            raise StoreError(f"prepare {path}: the container has a root file system already") from error
        except OSError as error:
            hint = FULL_HINT if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
            raise StoreError(f"prepare {path}: {kernel_says(error)}", hint) from error
        return snapshot

    def _adopt_root(self, snapshot: Snapshot) -> None:
        """Give the upperdir the owner and mode of the image's root directory: it becomes the container's."""
        below = self._stat_lower(snapshot.lowers[0])
        if os.geteuid() == 0 and (below.st_uid or below.st_gid):
            os.chown(snapshot.upper, below.st_uid, below.st_gid)
        os.chmod(snapshot.upper, below.st_mode & 0o7777)

    def _stat_lower(self, path: str) -> os.stat_result:
        return os.stat(path)

    def commit(self, key: str, chain_id: str, place: str, memory_fd: int = -1) -> None:
        self._clone_upper(key, f"{place}/layer/diff", memory_fd)
        os.rename(f"{place}/layer", os.path.dirname(self.layer_path(chain_id)))

    def adopt(self, key: str, chain_id: str) -> None:
        from minibox.storage.layers import move_layer

        own = container_directory(self.root, key)
        os.makedirs(f"{own}/layer", 0o700, exist_ok=True)
        os.rename(f"{own}/upper", f"{own}/layer/diff")
        move_layer(f"{own}/layer", os.path.dirname(self.layer_path(chain_id)))

    def alias(self, chain_id: str, layer: str) -> None:
        from minibox.storage.layers import link_layer

        link_layer(f"{self.root}/layers/{chain_id[7:]}", layer[7:])

    def make_empty(self, chain_id: str) -> None:
        os.makedirs(self.layer_path(chain_id), exist_ok=True)
        os.chmod(self.layer_path(chain_id), 0o755)

    def aliases(self) -> dict[str, str]:
        from minibox.storage.layers import links_in

        return links_in(f"{self.root}/layers")

    def _clone_upper(self, key: str, path: str, memory_fd: int) -> None:
        """Clone what a container has written, in overlayfs's form."""
        from minibox.storage.clone import clone

        os.mkdir(os.path.dirname(path), 0o700)
        in_memory = memory_fd >= 0
        own = f"/proc/self/fd/{memory_fd}" if in_memory else container_directory(self.root, key)
        owners = memory_owners(memory_fd) if in_memory else None
        clone(f"{own}/upper", path, owners=owners)

    def remove(self, key: str) -> None:
        from minibox.linux.removal import remove_directory

        remove_directory(container_directory(self.root, key))

    def open_lower(self, path: str) -> int:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def layers(self) -> list[str]:
        from minibox.storage.layers import chain_ids_in

        return chain_ids_in(f"{self.root}/layers")

    def remove_layer(self, chain_id: str) -> None:
        from minibox.storage.layers import remove_at_once

        remove_at_once(f"{self.root}/layers", chain_id[7:])

    def layer_bytes(self, chain_id: str) -> int:
        from minibox.storage.usage import tree_bytes

        path = f"{self.root}/layers/{chain_id[7:]}"
        return 0 if os.path.islink(path) else tree_bytes(path)

    def snapshot_bytes(self, key: str) -> int:
        from minibox.storage.usage import tree_bytes

        return tree_bytes(f"{container_directory(self.root, key)}/upper")

    def layer_path(self, chain_id: str) -> str:
        """Return the directory of a layer."""
        return f"{self.root}/layers/{chain_id[7:]}/diff"

    def _check_file_system(self) -> None:
        """Refuse a file system that can't be an upper layer. This is checked once for each device."""
        containers_path = f"{self.root}/containers"
        try:
            device = os.stat(containers_path).st_dev
        except FileNotFoundError:
            os.makedirs(containers_path, mode=0o700, exist_ok=True)
            device = os.stat(containers_path).st_dev
        # A symlink is the cheapest note on disk: it takes one system call to read, and is never half written.
        note = f"{self.root}/cache/upper-device"
        found = f"{device}:{os.geteuid()}"
        with suppress(OSError):
            if os.readlink(note) == found:
                return
        problem = why_unsuitable(containers_path)
        if problem is not None:
            raise problem
        try:
            os.makedirs(f"{self.root}/cache", mode=0o700, exist_ok=True)
            replace_link(note, found)
        except OSError:
            return


def why_unsuitable(path: str) -> Unsupported | None:
    """Return why overlayfs can't have its upperdir in the directory ``path``, or None.

    For an ordinary user the file system must also support user xattrs (mount option userxattr).
    """
    from minibox.linux.mount_table import file_system_type

    kind = file_system_type(path)
    if kind in UNSUITABLE_UPPER or kind.startswith("fuse.") or kind == "fuse":
        inside = "; in a container: give that a volume, -v minibox:/var/lib/minibox" if kind == "overlay" else ""
        return Unsupported(f"keep containers in {path}: it is on {kind}, which can't be overlayfs's upperdir",
                           ELSEWHERE_HINT + inside)  # fmt: skip
    if os.geteuid() != 0:
        try:
            os.setxattr(path, "user.overlay.probe", b"y")
            os.removexattr(path, "user.overlay.probe")
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return Unsupported(
                    f"keep containers in {path}: its file system, {kind}, doesn't support user xattrs, "
                    "which an ordinary user's overlayfs needs",
                    ELSEWHERE_HINT,
                )
    return None
