"""Snapshots as overlayfs wants them: directories, and nothing mounted.

On disk under ``root``, with nothing chowned or shifted (files keep the image's own ids; a user
namespace's ids are mapped by id-mapped mounts, see ARCHITECTURE):

    containers/<key>/upper   what the container wrote; mode 0755, of who made it
    containers/<key>/work    overlayfs's own
    layers/<name>/diff       a committed layer

Source: https://docs.kernel.org/filesystems/overlayfs.html. This is on the hot path.
"""

from __future__ import annotations

import errno
import os

from minibox.errors import StoreError, Unsupported, kernel_says
from minibox.record import record

# Lower layers that one mount takes: OVL_MAX_STACK of fs/overlayfs (kernel 4.0 and later).
LOWERDIRS_MAX = 500

# File systems that have no whiteouts or no xattrs, or whose changes overlayfs can't see.
UNSUITABLE_UPPER = frozenset(
    "overlay aufs ecryptfs nfs nfs4 cifs smb3 9p vfat msdos exfat ntfs ntfs3 fuseblk iso9660 squashfs erofs".split()
)
FULL_HINT = "free some space, or set --root to a directory on another disk"
ELSEWHERE_HINT = "set --root to a directory on ext4, xfs or btrfs"


@record
class Snapshot:
    """An active snapshot's directories, absolute, for mount(2) of overlayfs.

    ``lowerdirs`` are topmost first.
    """

    lowerdirs: tuple[str, ...]
    upperdir: str
    workdir: str


class Overlay:
    """The overlayfs snapshotter under ``root``; see `minibox.storage.Snapshotter`."""

    __slots__ = ("_containers_path", "root")

    def __init__(self, root: str) -> None:
        self.root = root
        self._containers_path = f"{root}/containers"

    def prepare(self, key: str, parent: tuple[str, ...]) -> Snapshot:
        """See `minibox.storage.Snapshotter.prepare`."""
        if not 0 < len(parent) <= LOWERDIRS_MAX:
            raise StoreError(
                f"prepare a root file system of {len(parent)} layers: overlayfs takes 1 to {LOWERDIRS_MAX}",
                "flatten the image" if parent else None,
            )
        path = self._path(key)
        try:
            self._check_file_system()
            os.makedirs(path, mode=0o700, exist_ok=True)
            os.mkdir(f"{path}/upper")
            os.mkdir(f"{path}/work")
            # Not left to the umask: this is the container's root directory.
            os.chmod(f"{path}/upper", 0o755)
        except FileExistsError as error:
            raise StoreError(f"prepare {path}: the container has a root file system already") from error
        except OSError as error:
            hint = FULL_HINT if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
            raise StoreError(f"prepare {path}: {kernel_says(error)}", hint) from error
        return Snapshot(lowerdirs=parent, upperdir=f"{path}/upper", workdir=f"{path}/work")

    def commit(self, key: str, name: str) -> str:
        """See `minibox.storage.Snapshotter.commit`."""
        layer_path = f"{self.root}/layers/{name.removeprefix('sha256:')}"
        try:
            os.makedirs(f"{self.root}/layers", mode=0o700, exist_ok=True)
            os.mkdir(layer_path, 0o700)
            try:
                os.rename(f"{self._path(key)}/upper", f"{layer_path}/diff")
            except OSError:
                os.rmdir(layer_path)
                raise
        except OSError as error:
            raise StoreError(f"commit snapshot {key} as {name}: {kernel_says(error)}") from error
        self.remove(key)
        return f"{layer_path}/diff"

    def remove(self, key: str) -> None:
        """See `minibox.storage.Snapshotter.remove`.

        The whole directory of the container goes, with what else its owner keeps there.
        """
        from minibox.storage.removal import remove_tree

        path = self._path(key)
        try:
            remove_tree(path)
        except OSError as error:
            where = f"remove {path}" + (f" ({error.filename!r})" if error.filename else "")
            raise StoreError(f"{where}: {kernel_says(error)}") from error

    def _path(self, key: str) -> str:
        if not key or "/" in key or key in (".", "..") or "\0" in key:
            raise StoreError(f"{key!r} is no id of a container")
        return f"{self._containers_path}/{key}"

    def _check_file_system(self) -> None:
        """Refuse a file system that can't be an upper layer; asked once for each device it is on."""
        try:
            device = os.stat(self._containers_path).st_dev
        except FileNotFoundError:
            os.makedirs(self._containers_path, mode=0o700, exist_ok=True)
            device = os.stat(self._containers_path).st_dev
        # A symlink is the cheapest note on disk: one system call to read, and never half written.
        note = f"{self.root}/cache/upper-device"
        found = f"{device}:{os.geteuid()}"
        try:
            if os.readlink(note) == found:
                return
        except OSError:
            pass
        problem = why_unsuitable(self._containers_path)
        if problem is not None:
            raise problem
        try:
            os.makedirs(f"{self.root}/cache", mode=0o700, exist_ok=True)
            os.symlink(found, f"{note}.{os.getpid()}")
            os.rename(f"{note}.{os.getpid()}", note)
        except OSError:
            return


def why_unsuitable(path: str) -> Unsupported | None:
    """Why overlayfs can't have its upperdir in the directory ``path``, or None.

    For an ordinary user the directory must keep user xattrs too (mount option userxattr).
    """
    kind = file_system_type(path)
    if kind in UNSUITABLE_UPPER or kind.startswith("fuse.") or kind == "fuse":
        return Unsupported(f"keep containers in {path}: it is on {kind}, which can't be overlayfs's upperdir",
                           ELSEWHERE_HINT)  # fmt: skip
    if os.geteuid() != 0:
        try:
            os.setxattr(path, "user.overlay.probe", b"y")
            os.removexattr(path, "user.overlay.probe")
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return Unsupported(
                    f"keep containers in {path}: its file system, {kind}, keeps no user xattrs, which an ordinary "
                    "user's overlayfs needs",
                    ELSEWHERE_HINT,
                )
    return None


def file_system_type(path: str) -> str:
    """The type of the file system that ``path`` is on, in the kernel's words (ext4, overlay, nfs4); "" if unknown.

    Source: proc_pid_mountinfo(5). By device number, else (btrfs subvolumes have numbers of their
    own) by the longest mount point above.
    """
    real = os.path.realpath(path)
    device = os.stat(real).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    best, kind = -1, ""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split()
            point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
            fs_type = fields[fields.index("-", 6) + 1]
            if fields[2] == wanted:
                return fs_type
            inside = point == "/" or real == point or real.startswith(point + "/")
            if inside and len(point) >= best:
                best, kind = len(point), fs_type
    return kind
