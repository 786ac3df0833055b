"""Open file system images."""

from __future__ import annotations

import os

from minibox._native import lib


def open_image(path: str) -> int:
    """Mount an EROFS image, detached and read-only: return a directory descriptor (O_PATH). No mount table lists it.

    It mounts the file itself (Linux 6.12), or else a loop device that goes away with the mount. A directory is opened
    as it is.

    Raises:
        OSError: EPERM if we aren't the host's root, ENODEV if the kernel has no EROFS.
    """
    fd: int = lib.mb_open_image(os.fsencode(path))
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd), path)
    return fd
