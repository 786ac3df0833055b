"""What hides files of the layers below: the marks of a layer's archive (OCI image-spec, layer.md), and overlayfs's."""

from __future__ import annotations

import errno
import os
import stat

from minibox.errors import Unsupported
from minibox.image.attributes import copy_attributes
from minibox.linux.files import open_beneath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."
NO_DIRECTORY = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def make_opaque(directory_fd: int) -> None:
    """Mark a directory so that overlayfs hides what is below it.

    Raises:
        Unsupported: the file system keeps no such xattrs.
    """
    done = False
    for namespace in ("trusted", "user") if os.geteuid() == 0 else ("user",):
        try:
            os.setxattr(directory_fd, f"{namespace}.overlay.opaque", b"y")
            done = True
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP):
                raise
    if not done:
        raise Unsupported(
            "mark a directory opaque: the file system keeps no user xattrs",
            "set --root to a directory on ext4, xfs or btrfs",
        )


def adopt_directories(directory: str, implied: Iterable[bytes], lowers: Sequence[str], *, owner: bool) -> None:
    """Give implied directories what they have in the layers below: overlayfs shows the topmost one's attributes.

    Args:
        directory: where the layer was unpacked.
        implied: `Extractor.implied`.
        lowers: directories of the layers below, topmost first.
        owner: whether owners were kept.

    Raises:
        OSError: the kernel refused.
    """
    for path in implied:
        for lower in lowers:
            try:
                found = _open_in(lower, path)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in NO_DIRECTORY:
                    break  # hidden by something else
                raise
            try:
                made = _open_in(directory, path)
                try:
                    copy_attributes(found, made, owner=owner)
                finally:
                    os.close(made)
            finally:
                os.close(found)
            break


def hide_all_below(directory: str, lowers: Sequence[str]) -> None:
    """Hide what is in the layers below, name by name: overlayfs merges root directories, opaque or not.

    Args:
        directory: where the layer was unpacked.
        lowers: directories of the layers below.

    Raises:
        OSError: the kernel refused.
    """
    root_fd = os.open(directory, OPEN_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in {os.fsencode(name) for lower in lowers for name in os.listdir(lower)}:
            present = lstat(name, root_fd)
            if present is None:
                os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=root_fd)
            elif stat.S_ISDIR(present.st_mode):
                inner_fd = open_beneath(root_fd, name, OPEN_DIRECTORY)
                try:
                    make_opaque(inner_fd)
                finally:
                    os.close(inner_fd)
    finally:
        os.close(root_fd)


def _open_in(directory: str, path: bytes) -> int:
    root_fd = os.open(directory, OPEN_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_beneath(root_fd, path or b".", OPEN_DIRECTORY)
    finally:
        os.close(root_fd)


def lstat(name: bytes, dir_fd: int) -> os.stat_result | None:
    """The status of a name in a directory; None when it isn't there."""
    try:
        return os.lstat(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
