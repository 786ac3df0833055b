"""What a directory tree takes of the disk."""

from __future__ import annotations

import os


def tree_bytes(path: str) -> int:
    """Bytes of all blocks below and of ``path``, each inode once, as du(1); 0 when it isn't there.

    What the caller may not read counts for nothing.
    """
    total, linked = 0, set()
    waiting = [path]
    while waiting:
        directory = waiting.pop()
        try:
            total += os.lstat(directory).st_blocks * 512
            with os.scandir(directory) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif status.st_nlink == 1 or (status.st_dev, status.st_ino) not in linked:
                        total += status.st_blocks * 512
                        if status.st_nlink > 1:
                            linked.add((status.st_dev, status.st_ino))
        except OSError:
            continue  # it went meanwhile, or is another user's
    return total


def own_bytes(path: str) -> int:
    return tree_bytes(path)  # TODO: only what is not shared
