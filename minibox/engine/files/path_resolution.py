"""Resolve a path below a container's root, as a process with that root would: no symlink leads out of it."""

from __future__ import annotations

import os
import stat
from errno import ELOOP
from posixpath import normpath

from minibox.base.files import closing
from minibox.linux.files import open_beneath

SYMLINKS_MAX = 40  # path_resolution(7)
LOOK = os.O_PATH | os.O_NOFOLLOW


def find(root_fd: int, path: str, follow: bool) -> tuple[str, int]:
    """Resolve ``path`` below ``root_fd``: return an absolute path without symlinks, and an O_PATH descriptor of it; -1
    if it doesn't exist.

    Args:
        follow: resolve a symlink in the last part too.

    Raises:
        OSError: it can't be resolved; has the path.
    """
    waiting, real, links = normpath(f"/{path.lstrip('/')}").split("/")[::-1], "", 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            real = real.rpartition("/")[0]
        if part in ("", ".", ".."):
            continue
        try:
            fd = open_straight(root_fd, f"{real}/{part}", LOOK)
        except FileNotFoundError:
            return "/".join([real, part, *waiting[::-1]]), -1
        is_last = not any(waiting)
        if not stat.S_ISLNK(os.fstat(fd).st_mode) or (is_last and not follow):
            real = f"{real}/{part}"
            if is_last:
                return real, fd
            os.close(fd)
            continue
        with closing(fd):
            links += 1
            if links > SYMLINKS_MAX:
                raise OSError(ELOOP, os.strerror(ELOOP), path)
            target = os.fsdecode(os.readlink(b"", dir_fd=fd))
        real = "" if target.startswith("/") else real
        waiting += target.split("/")[::-1]
    return real or "/", open_straight(root_fd, real or "/", LOOK)


def open_straight(root_fd: int, path: str, flags: int) -> int:
    """Open an absolute path below a root. A symlink in it raises OSError with ELOOP and the path."""
    try:
        return open_beneath(root_fd, path.lstrip("/") or ".", flags)
    except OSError as error:
        error.filename = path
        raise
