"""File systems in a file."""

from __future__ import annotations

import os

from minibox._native import lib


def open_image(path: str) -> int:
    """A detached, read-only mount of an EROFS image: a directory descriptor (O_PATH), nothing in a mount table.

    From the file itself (Linux 6.12), else through a loop device that goes with the mount. A directory is taken as it is.

    Raises:
        OSError: EPERM for who is not the host's root, ENODEV from a kernel without EROFS.
    """
    fd: int = lib.mb_open_image(os.fsencode(path))
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd), path)
    return fd
