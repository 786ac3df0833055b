"""Find out whether layers under a state root can be id-mapped. Tried once after each boot, then remembered.

It takes Linux 5.19 and a file system that supports it: ext4, xfs and btrfs always do, tmpfs since Linux 6.3; overlayfs,
NFS and 9p don't. A version number wouldn't tell. The answer is remembered with the kernel, file system and kind of
storage driver that it is for. It isn't remembered if the attempt failed for another reason, or if the refusal concerns
this caller alone: a policy, a seccomp filter, or the caller's root directory.
"""

from __future__ import annotations

import os

from minibox.base.files import replace_link
from minibox.errors import suppress

ABLE = "ok"
# Part of the answer's file name. Increase it when older answers must not be trusted.
VERSION = 4
BOOT_ID = "/proc/sys/kernel/random/boot_id"
TREES = ("btrfs", "copy")


def refusal(root: str, driver: str) -> str:
    """Return why layers of a storage driver under ``root`` can't be id-mapped; "" if they can.

    A symlink below ``root/cache`` remembers the answer; its target says for what, and which.

    Raises:
        ProbeFailed: the attempt failed for another reason.
    """
    probe = "idmapped_tree" if driver in TREES else "idmapped_layers"
    path = f"{root}/cache/{probe}-{VERSION}"
    subject = _subject(root)
    with suppress(OSError):  # nothing is remembered yet
        remembered, _, found = os.readlink(path).partition(" ")
        if subject and remembered == subject:
            return "" if found == ABLE else found
    from minibox.engine.host import probes

    answer = probes.ask(probe, root if os.path.isdir(root) else _above(root))
    if subject and os.path.isdir(root) and answer.is_of_host:
        _remember(path, f"{subject} {answer.refusal or ABLE}")
    return answer.refusal


_boots: dict[str, str] = {}  # the kernel and the time of boot, once they were read


def _subject(root: str) -> str:
    """Return the kernel, the time of boot and the file system; "" if unknown."""
    try:
        if BOOT_ID not in _boots:
            with open(BOOT_ID, "rb", 0) as file:
                _boots[BOOT_ID] = f"{os.uname().release}:{file.read().decode('ascii').strip()}"
        return f"{_boots[BOOT_ID]}:{os.stat(root).st_dev}"
    except OSError:
        return ""


def _remember(path: str, answer: str) -> None:
    with suppress(OSError):  # the disk is full or read-only, so the next caller tries again
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        replace_link(path, answer)


def _above(path: str) -> str:
    """Return the nearest parent directory that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
