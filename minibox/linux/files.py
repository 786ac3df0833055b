"""Opening files below a directory that nothing may lead out of."""

from __future__ import annotations

import os

from minibox._native import ffi, lib

RESOLVE_NO_MAGICLINKS, RESOLVE_IN_ROOT = 0x02, 0x10


def open_in_root(root_fd: int, path: str, flags: int) -> int:
    """Open ``path`` as a process whose root directory is ``root_fd`` would see it; openat2(2), Linux 5.6.

    Absolute symlinks and ``..`` stay below ``root_fd``. Close-on-exec.

    Raises:
        OSError: with the path.
    """
    fd: int = lib.mb_openat2(
        root_fd, os.fsencode(path), flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    )
    if fd < 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno), path)
    return fd
