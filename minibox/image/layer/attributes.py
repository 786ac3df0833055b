"""Set the owner, mode, xattrs and times of unpacked files."""

from __future__ import annotations

import errno
import os
import stat

from minibox.base.files import closing
from minibox.errors import StoreError
from minibox.image.layer import tar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    OwnerPolicy = Literal["auto", "keep", "ignore"]


ID_MAX, KEEP_ID = (1 << 32) - 2, (1 << 32) - 1
TIME_S_MIN, TIME_S_MAX = -(1 << 31), 1 << 33  # nearly the range of ext4 and xfs
XATTRS_OF_IMAGES = (b"user.", b"system.posix_acl_")
XATTR_CAPABILITY = b"security.capability"
XATTRS_OF_OVERLAYFS = b"user.overlay."
NOT_OPENED = {
    tar.SYMLINK: stat.S_IFLNK,
    tar.FIFO: stat.S_IFIFO,
    tar.CHARACTER: stat.S_IFCHR,
    tar.BLOCK_DEVICE: stat.S_IFBLK,
}
XATTR_REFUSALS = (errno.EPERM, errno.ENOTSUP, errno.EINVAL, errno.EACCES)


class LayerAttributes:
    """Gives files the attributes in their entries.

    Args:
        owner_policy: see `minibox.image.layer.extract.Extractor`.
        replace: the file may have xattrs from a layer below; remove them.
    """

    def __init__(self, owner_policy: OwnerPolicy, *, replace: bool) -> None:
        self.keeps_owner = owner_policy == "keep" or (owner_policy == "auto" and os.geteuid() == 0)
        self._replace = replace

    def apply(self, descriptor: int, entry: tar.Entry) -> None:
        """Set the attributes of an open file or directory.

        The owner comes first, because chown clears set-user-ID bits and file capabilities.

        Raises:
            StoreError: the owner is invalid or not mapped.
            OSError: the kernel refused.
        """
        if self.keeps_owner:
            try:
                os.fchown(descriptor, entry.uid, entry.gid)
            except (OSError, OverflowError) as error:
                raise _owner_refused(entry, error) from error
        os.fchmod(descriptor, entry.mode)
        if self._replace:
            for name in os.listxattr(descriptor):
                if is_of_images(os.fsencode(name)) and os.fsencode(name) not in entry.xattrs:
                    os.removexattr(descriptor, name)
        if entry.xattrs:
            set_xattrs(descriptor, entry.xattrs)
        time_ns = _time_ns(entry)
        os.utime(descriptor, ns=(time_ns, time_ns))

    def plain(self, entry: tar.Entry) -> tuple[int, int, int, int]:
        """Return what `apply` would set, without xattrs: time in ns, mode, uid, gid; `KEEP_ID` is no id, and keeps it."""
        owner = (entry.uid, entry.gid) if self.keeps_owner else (KEEP_ID, KEEP_ID)
        return _time_ns(entry), entry.mode, *owner

    def apply_at(self, name: bytes, dir_fd: int, entry: tar.Entry) -> None:
        """Set the attributes of a symlink, FIFO or device without opening it; of one inode, even if names change."""
        with closing(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)) as fd:
            if stat.S_IFMT(os.fstat(fd).st_mode) != NOT_OPENED[entry.kind]:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)  # replaced meanwhile
            path = f"/proc/self/fd/{fd}"  # for a symlink, this means the symlink itself
            if self.keeps_owner:
                try:
                    os.chown(path, entry.uid, entry.gid)
                except (OSError, OverflowError) as error:
                    raise _owner_refused(entry, error) from error
            if entry.kind != tar.SYMLINK:
                os.chmod(path, entry.mode)
            time_ns = _time_ns(entry)
            os.utime(path, ns=(time_ns, time_ns))


def is_of_images(name: bytes) -> bool:
    """Tell whether an image may set an xattr: not those of overlayfs, of security modules or of root."""
    return name == XATTR_CAPABILITY or (name.startswith(XATTRS_OF_IMAGES) and not name.startswith(XATTRS_OF_OVERLAYFS))


def set_xattrs(descriptor: int, xattrs: dict[bytes, bytes]) -> None:
    """Set the xattrs that an image may set, if we and the file system can.

    Raises:
        OSError: the kernel refused for another reason than missing privilege or support.
    """
    for name, value in xattrs.items():
        if not is_of_images(name):
            continue
        try:
            os.setxattr(descriptor, name, value)
        except OSError as error:
            if error.errno not in XATTR_REFUSALS:
                raise


def copy_attributes(from_fd: int, to_fd: int, *, owner: bool) -> None:
    """Copy owner, mode, xattrs of images and times from one directory to another."""
    status = os.fstat(from_fd)
    if owner:
        os.fchown(to_fd, status.st_uid, status.st_gid)
    os.fchmod(to_fd, stat.S_IMODE(status.st_mode))
    names = [os.fsencode(name) for name in os.listxattr(from_fd)]
    set_xattrs(to_fd, {name: os.getxattr(from_fd, name) for name in names if is_of_images(name)})
    os.utime(to_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _owner_refused(entry: tar.Entry, error: OSError | OverflowError) -> Exception:
    """Turn an error of chown(2) into words. EINVAL means that the user namespace doesn't map the id."""
    if not (0 <= entry.uid <= ID_MAX and 0 <= entry.gid <= ID_MAX):
        return StoreError(f"{ascii(entry.name)} belongs to {entry.uid}:{entry.gid}: not valid ids")
    if isinstance(error, OSError) and error.errno == errno.EINVAL:
        return unmapped(ascii(entry.name), entry.uid, entry.gid)
    return error


def unmapped(name: str, uid: int, gid: int) -> StoreError:
    """Return the error that the owner of a new file isn't mapped in the user namespace."""
    return StoreError(
        f"{name} belongs to {uid}:{gid}, which the user namespace doesn't map",
        "give your user more ids in /etc/subuid and /etc/subgid, or do it as root",
    )


def _time_ns(entry: tar.Entry) -> int:
    return min(max(entry.mtime_ns, TIME_S_MIN * tar.SECOND_NS), TIME_S_MAX * tar.SECOND_NS)
