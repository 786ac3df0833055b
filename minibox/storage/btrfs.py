"""Snapshots as btrfs subvolumes: cloning a tree of any size takes one system call.

It uses ioctl(2), not btrfs-progs. An ordinary user may make subvolumes, and may remove them file by file. Source:
linux/btrfs.h, https://btrfs.readthedocs.io/en/latest/btrfs-ioctl.html.
"""

from __future__ import annotations

import errno
import fcntl
import os

from minibox.base.files import closing
from minibox.errors import kernel_says, suppress
from minibox.storage.tree import OTHER_HINT, Trees

SUBVOL_CREATE = 0x5000940E
SNAP_DESTROY = 0x5000940F
SNAP_CREATE_V2 = 0x50009417
SUBVOL_SETFLAGS = 0x4008941A
READ_ONLY = 1 << 1  # BTRFS_SUBVOL_RDONLY
SUBVOLUME_INODE = 256
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Btrfs(Trees):
    """Keeps snapshots as subvolumes under ``root``, which must be on btrfs."""

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
            # We are an ordinary user (and it isn't mounted with user_subvol_rm_allowed), or the container made
            # a subvolume in it. The caller removes it file by file, and empty subvolumes too (Linux 4.18).
            with suppress(OSError):  # it may not be a subvolume at all
                set_read_only(path, False)

    def refusal(self, directory: str) -> str:
        return refusal(directory, directory)


def refusal(directory: str, place: str) -> str:
    """Try to make a subvolume in ``directory``; return why that fails, or "". The text calls it ``place``."""
    probe = f"{directory}/btrfs-probe-{os.getpid()}-{os.urandom(4).hex()}"  # several threads may try
    try:
        create_subvolume(probe)
        os.rmdir(probe)
    except OSError as error:
        from minibox.linux.mount_table import file_system_type

        kind = file_system_type(directory)
        return f"{place} is on {kind}" if kind != "btrfs" else kernel_says(error)
    return ""


def create_subvolume(path: str) -> None:
    """Make an empty subvolume.

    Raises:
        OSError: ENOTTY if the file system isn't btrfs.
    """
    _at_parent(path, SUBVOL_CREATE, _arguments(path))


def is_subvolume(path: str) -> bool:
    """Tell whether there is a subvolume. All have the same inode number, BTRFS_FIRST_FREE_OBJECTID."""
    from minibox.linux.mount_table import file_system_type

    try:
        return os.lstat(path).st_ino == SUBVOLUME_INODE and file_system_type(path) == "btrfs"
    except OSError:
        return False


def create_snapshot(source: str, path: str) -> None:
    """Make a writable snapshot of the subvolume ``source``. The kernel refuses a directory in one (EINVAL).

    Raises:
        OSError: the kernel refused.
    """
    with closing(os.open(source, OPEN_DIRECTORY)) as fd:
        name = os.fsencode(os.path.basename(path))
        # struct btrfs_ioctl_vol_args_v2: fd, transid, flags, 4 unused; name[4040]
        head = fd.to_bytes(8, "little") + bytes(48)
        _at_parent(path, SNAP_CREATE_V2, bytearray(head + name.ljust(4040, b"\0")))


def destroy(path: str) -> None:
    """Remove a subvolume and everything in it. The kernel frees its blocks later.

    Raises:
        OSError: EPERM for an ordinary user, ENOTEMPTY if it contains another subvolume.
    """
    _at_parent(path, SNAP_DESTROY, _arguments(path))


def set_read_only(path: str, read_only: bool) -> None:
    """Make a subvolume read-only or writable.

    Raises:
        OSError: the kernel refused.
    """
    with closing(os.open(path, OPEN_DIRECTORY)) as fd:
        fcntl.ioctl(fd, SUBVOL_SETFLAGS, (READ_ONLY if read_only else 0).to_bytes(8, "little"))


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
