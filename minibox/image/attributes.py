"""Owner, mode, xattrs and times of what is unpacked."""

from __future__ import annotations

import errno
import os
import stat

from minibox.errors import StoreError
from minibox.image import tar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    OwnerPolicy = Literal["auto", "keep", "ignore"]

ID_MAX = (1 << 32) - 2
TIME_S_MIN, TIME_S_MAX = -(1 << 31), 1 << 33  # what ext4 and xfs can keep, nearly
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
    """Gives files what their entries say.

    Args:
        owner_policy: see `minibox.image.extract.Extractor`.
        replace: the file may have xattrs of a layer below, which go.
    """

    def __init__(self, owner_policy: OwnerPolicy, *, replace: bool) -> None:
        self.keeps_owner = owner_policy == "keep" or (owner_policy == "auto" and os.geteuid() == 0)
        self._replace = replace

    def apply(self, descriptor: int, entry: tar.Entry) -> None:
        """To an open file or directory. Owner first, since chown clears set-user-ID bits and file capabilities.

        Raises:
            StoreError: the owner can't be.
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

    def apply_at(self, name: bytes, dir_fd: int, entry: tar.Entry) -> None:
        """To what is no file or directory, and shouldn't be opened: to one inode, whoever changes its name meanwhile."""
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            if stat.S_IFMT(os.fstat(fd).st_mode) != NOT_OPENED[entry.kind]:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)  # another one is there by now
            path = f"/proc/self/fd/{fd}"  # of a symlink, itself
            if self.keeps_owner:
                try:
                    os.chown(path, entry.uid, entry.gid)
                except (OSError, OverflowError) as error:
                    raise _owner_refused(entry, error) from error
            if entry.kind != tar.SYMLINK:
                os.chmod(path, entry.mode)
            time_ns = _time_ns(entry)
            os.utime(path, ns=(time_ns, time_ns))
        finally:
            os.close(fd)


def is_of_images(name: bytes) -> bool:
    """Whether an xattr is an image's to set; overlayfs's own, those of security modules and of root never are."""
    return name == XATTR_CAPABILITY or (name.startswith(XATTRS_OF_IMAGES) and not name.startswith(XATTRS_OF_OVERLAYFS))


def set_xattrs(descriptor: int, xattrs: dict[bytes, bytes]) -> None:
    """Set those xattrs of an image that are its to set, where that is possible.

    Raises:
        OSError: the kernel refused, other than because of privilege or for the file system.
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
    """Give a directory what another one has: owner, mode, xattrs of images and times."""
    status = os.fstat(from_fd)
    if owner:
        os.fchown(to_fd, status.st_uid, status.st_gid)
    os.fchmod(to_fd, stat.S_IMODE(status.st_mode))
    names = [os.fsencode(name) for name in os.listxattr(from_fd)]
    set_xattrs(to_fd, {name: os.getxattr(from_fd, name) for name in names if is_of_images(name)})
    os.utime(to_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _owner_refused(entry: tar.Entry, error: OSError | OverflowError) -> Exception:
    """EINVAL of chown(2) means that the user namespace doesn't map the id."""
    if not (0 <= entry.uid <= ID_MAX and 0 <= entry.gid <= ID_MAX):
        return StoreError(f"{ascii(entry.name)} belongs to {entry.uid}:{entry.gid}: no such ids can be")
    if isinstance(error, OSError) and error.errno == errno.EINVAL:
        return StoreError(
            f"{ascii(entry.name)} belongs to {entry.uid}:{entry.gid}, which the user namespace doesn't map",
            "give the user a larger range in /etc/subuid and /etc/subgid",
        )
    return error


def _time_ns(entry: tar.Entry) -> int:
    return min(max(entry.mtime_ns, TIME_S_MIN * tar.SECOND_NS), TIME_S_MAX * tar.SECOND_NS)
