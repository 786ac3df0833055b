"""The files below the directories of a runtime's state."""

from __future__ import annotations

import os
import stat
from pathlib import Path

BYTES_MAX = 1 << 16
#: Not of a container: images and their layers, and root file systems, whose content is recorded from inside.
LEFT_OUT = {"images", "layers", "upper", "work", "merged", "_data"}
Facts = dict[str, tuple[int, int, int, int]]


def facts(*roots: Path) -> Facts:
    """Of each file what changes when it is written anew."""
    found: Facts = {}
    for root in roots:
        for directory, subdirectories, names in os.walk(root):
            subdirectories[:] = sorted(set(subdirectories) - LEFT_OUT)
            for name in (*names, *subdirectories):
                path = os.path.join(directory, name)
                try:
                    it = os.lstat(path)
                except FileNotFoundError:
                    continue
                written = (0, 0) if stat.S_ISDIR(it.st_mode) else (it.st_mtime_ns, it.st_size)
                found[path] = (it.st_mode, it.st_ino, *written)
    return found


def contents(before: Facts, now: Facts) -> dict[str, str]:
    """What is new or was changed, and what is gone."""
    found = dict.fromkeys(before.keys() - now.keys(), "gone")
    for path in sorted(path for path in now if now[path] != before.get(path)):
        mode, inode, _, size = now[path]
        old = before.get(path, (0, 0, 0, 0))
        found[path] = _content(path, mode, old[3] if old[1] == inode and old[3] < size else 0)
    return found


def _content(path: str, mode: int, begin: int) -> str:
    """A file's text from ``begin`` on: of one that grows, what is new."""
    kind = f"{stat.filemode(mode)}"
    try:
        if stat.S_ISLNK(mode):
            return f"{kind} -> {os.readlink(path)}"
        if not stat.S_ISREG(mode):
            return kind
        with open(path, "rb") as file:
            file.seek(begin)
            data = file.read(BYTES_MAX)
    except OSError as error:
        return f"{kind} {error.strerror}"
    if b"\0" in data:
        return f"{kind} binary"
    return data.decode(errors="replace")
