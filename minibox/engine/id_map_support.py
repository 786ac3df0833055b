"""Whether the layers under a state root can be id-mapped: tried once a kernel, then remembered.

It takes Linux 5.19 and a file system that takes part: ext4, xfs and btrfs always do, tmpfs since
Linux 6.3, overlayfs, NFS and 9p don't. A version number wouldn't tell.
"""

from __future__ import annotations

import os

ABLE = "ok"


def refusal(root: str) -> tuple[str, bool]:
    """What the kernel said against id-mapped layers under ``root``, "" when they work; and whether that is news.

    A symlink below ``root/cache`` remembers the answer, whose target it is.
    """
    path = f"{root}/cache/id-map-{os.uname().release}"
    try:
        answer = os.readlink(path)
        return ("" if answer == ABLE else answer), False
    except OSError:
        from minibox.engine.doctor import probe_layers

        found = probe_layers(root)
        if found is None:  # not to know is no reason to go without: the start itself will tell
            return "", False
        _remember(path, found)
    return ("", False) if found == ABLE else (found, True)


def _remember(path: str, answer: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        os.symlink(answer, path)
    except OSError:
        pass  # another run was faster, or the disk is full: it is tried again
