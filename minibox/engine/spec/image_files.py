"""Read a file of an image from its unpacked layers, without mounting them."""

from __future__ import annotations

import os
from stat import S_ISCHR

from minibox.base.files import READ, closing, open_regular, read_fd
from minibox.engine.spec.users import ABSENT, DATABASE_BYTES_MAX
from minibox.errors import MiniboxError, trying
from minibox.linux.files import open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


def read_text(open_lower: Callable[[str], int], lowers: tuple[str, ...], path: str) -> str:
    """Return the text of a user database (`engine.spec.users`) in the layers, topmost first; "" if the image lacks it.

    A symlink is followed within its own layer only: user databases are regular files.

    Args:
        open_lower: opens the directory of a layer; see `minibox.storage.drivers.Snapshotter.open_lower`.

    Raises:
        MiniboxError: the file can't be read, or isn't a regular file of reasonable size.
    """
    for lower in lowers:
        with closing(open_lower(lower)) as root_fd, trying(MiniboxError, f"read {path} of the image"):
            found = _read(root_fd, path)
            if found is not None:
                return found
            if _opaque(root_fd, os.path.dirname(path)):
                return ""
    return ""


def _read(root_fd: int, path: str) -> str | None:
    """Return a layer's text at ``path``; "" if the layer removes the file; None if it says nothing about it."""
    try:
        look = open_in_root(root_fd, path, os.O_PATH)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    with closing(look):
        status = os.fstat(look)
        if S_ISCHR(status.st_mode) and not status.st_rdev:
            return ""  # a whiteout
        with closing(open_regular(look, READ, path)) as fd:
            return read_fd(fd, DATABASE_BYTES_MAX, path).decode(errors="surrogateescape")


def _opaque(root_fd: int, directory: str) -> bool:
    """Return whether this layer's directory hides the directories of the layers below."""
    try:
        fd = open_in_root(root_fd, directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    with closing(fd):
        return any(_attribute(fd, name) == b"y" for name in OPAQUE)


def _attribute(fd: int, name: str) -> bytes:
    try:
        return os.getxattr(fd, name)
    except OSError:
        return b""
