"""Snapshots as subvolumes of btrfs: a clone is one system call, whatever the size of the tree.

By ioctl(2), without the programs of btrfs-progs. An ordinary user may make subvolumes, and may
remove them file by file. Source: linux/btrfs.h, https://btrfs.readthedocs.io/en/latest/btrfs-ioctl.html.
"""

from __future__ import annotations

import errno
import fcntl
import os

from minibox.errors import kernel_says
from minibox.storage.overlay import file_system_type
from minibox.storage.tree import OTHER_HINT, Trees

SUBVOL_CREATE = 0x5000940E
SNAP_DESTROY = 0x5000940F
SNAP_CREATE_V2 = 0x50009417
SUBVOL_SETFLAGS = 0x4008941A
READ_ONLY = 1 << 1  # BTRFS_SUBVOL_RDONLY
SUBVOLUME_INODE = 256
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Btrfs(Trees):
    """The snapshotter of subvolumes under ``root``, which is on btrfs."""

    driver = "btrfs"
    hint = f"set --root to a directory on btrfs, or {OTHER_HINT}"

    def _begin_layer(self, parent: str, path: str) -> None:
        if parent:
            create_snapshot(parent, path)
        else:
            create_subvolume(path)

    def _seal_layer(self, path: str) -> None:
        set_read_only(path, True)

    def _clone(self, layer: str, path: str) -> None:
        create_snapshot(layer, path)

    def _remove_tree(self, path: str) -> None:
        try:
            destroy(path)
        except FileNotFoundError:
            pass
        except OSError:
            # An ordinary user's (unless mounted with user_subvol_rm_allowed), or with a subvolume of the
            # container's own in it: then file by file, which takes empty subvolumes too (Linux 4.18).
            try:
                set_read_only(path, False)
            except OSError:
                pass  # it may not even be a subvolume

    def refusal(self, directory: str) -> str:
        return refusal(directory, directory)


def refusal(directory: str, place: str) -> str:
    """Why ``directory`` can't have subvolumes, "" when it can: one is made. ``place`` is what an answer names it."""
    probe = f"{directory}/btrfs-probe-{os.getpid()}"
    try:
        create_subvolume(probe)
        os.rmdir(probe)
    except OSError as error:
        kind = file_system_type(directory)
        return f"{place} is on {kind}" if kind != "btrfs" else kernel_says(error)
    return ""


def create_subvolume(path: str) -> None:
    """Make an empty subvolume.

    Raises:
        OSError: ENOTTY where the file system is another.
    """
    _at_parent(path, SUBVOL_CREATE, _arguments(path))


def is_subvolume(path: str) -> bool:
    """Is there one? Each has the same inode number, BTRFS_FIRST_FREE_OBJECTID."""
    from minibox.storage.overlay import file_system_type

    try:
        return os.lstat(path).st_ino == SUBVOLUME_INODE and file_system_type(path) == "btrfs"
    except OSError:
        return False


def create_snapshot(source: str, path: str) -> None:
    """Make a writable snapshot of the subvolume ``source``; one of a directory in it is refused (EINVAL).

    Raises:
        OSError: the kernel refused.
    """
    fd = os.open(source, OPEN_DIRECTORY)
    try:
        name = os.fsencode(os.path.basename(path))
        # struct btrfs_ioctl_vol_args_v2: fd, transid, flags, 4 unused; name[4040]
        head = fd.to_bytes(8, "little") + bytes(48)
        _at_parent(path, SNAP_CREATE_V2, bytearray(head + name.ljust(4040, b"\0")))
    finally:
        os.close(fd)


def destroy(path: str) -> None:
    """Remove a subvolume with all that is in it; the kernel frees its blocks later.

    Raises:
        OSError: EPERM for an ordinary user, ENOTEMPTY when another subvolume is in it.
    """
    _at_parent(path, SNAP_DESTROY, _arguments(path))


def set_read_only(path: str, read_only: bool) -> None:
    """Protect a subvolume, or allow to change it.

    Raises:
        OSError: the kernel refused.
    """
    fd = os.open(path, OPEN_DIRECTORY)
    try:
        fcntl.ioctl(fd, SUBVOL_SETFLAGS, (READ_ONLY if read_only else 0).to_bytes(8, "little"))
    finally:
        os.close(fd)


def _arguments(path: str) -> bytearray:
    """struct btrfs_ioctl_vol_args: fd, name[4088]."""
    return bytearray(bytes(8) + os.fsencode(os.path.basename(path)).ljust(4088, b"\0"))


def _at_parent(path: str, request: int, arguments: bytearray) -> None:
    fd = os.open(os.path.dirname(path), OPEN_DIRECTORY)
    try:
        fcntl.ioctl(fd, request, arguments)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or errno.EIO), path) from error
    finally:
        os.close(fd)
