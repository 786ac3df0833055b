"""Reading a file of an image from its unpacked layers, without mounting them."""

from __future__ import annotations

import os
from errno import ELOOP, ENOENT, ENOTDIR
from stat import S_ISCHR, S_ISREG

from minibox.linux.files import open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
LARGEST = 16 << 20


def read_text(open_lower: Callable[[str], int], lowers: tuple[str, ...], path: str) -> str:
    """The text of ``path`` in the stack of ``lowers``, topmost first; "" when the image lacks it.

    Args:
        open_lower: gives a directory descriptor of one of them; `minibox.storage.Snapshotter.open_lower`.

    A symlink is followed within its own layer only: user databases are regular files.
    """
    for lower in lowers:
        root_fd = open_lower(lower)
        try:
            fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR, ELOOP):
                if _opaque(root_fd, os.path.dirname(path)):
                    return ""
                continue
            return ""  # a whiteout's device can't be opened: the file was removed
        finally:
            os.close(root_fd)
        with open(fd, "rb") as file:
            mode = os.fstat(fd).st_mode
            if S_ISCHR(mode):
                return ""
            return file.read(LARGEST).decode(errors="surrogateescape") if S_ISREG(mode) else ""
    return ""


def _opaque(root_fd: int, directory: str) -> bool:
    """Does this layer's directory hide those of the layers below?"""
    try:
        fd = open_in_root(root_fd, directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        return any(_attribute(fd, name) == b"y" for name in OPAQUE)
    finally:
        os.close(fd)


def _attribute(fd: int, name: str) -> bytes:
    try:
        return os.getxattr(fd, name)
    except OSError:
        return b""
