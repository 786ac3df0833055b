"""Whether the layers under a state root can be id-mapped: tried once a boot, then remembered.

It takes Linux 5.19 and a file system that takes part: ext4, xfs and btrfs always do, tmpfs since Linux 6.3, overlayfs, NFS
and 9p don't. A version number wouldn't tell. What is remembered is that it works, or that the kernel or the file system
can't, and of which kernel, file system and kind of storage driver that was said. Where it couldn't be found out, nothing is;
nor what was said to this caller alone, by a policy, by his seccomp filter or because of his root directory.
"""

from __future__ import annotations

import os

from minibox.base.files import replace_link

ABLE = "ok"
#: Part of the name of what is remembered. Counts up when what was remembered before must not be trusted.
VERSION = 4
BOOT_ID = "/proc/sys/kernel/random/boot_id"
TREES = ("btrfs", "copy")


def refusal(root: str, driver: str) -> str:
    """What the kernel says against id-mapped layers of a storage driver under ``root``, "" when they work.

    A symlink below ``root/cache`` remembers the answer: its target says of what, and which.

    Raises:
        ProbeFailed: it could not be found out.
    """
    probe = "idmapped_tree" if driver in TREES else "idmapped_layers"
    path = f"{root}/cache/{probe}-{VERSION}"
    subject = _subject(root)
    try:
        remembered, _, found = os.readlink(path).partition(" ")
        if subject and remembered == subject:
            return "" if found == ABLE else found
    except OSError:
        pass  # nothing is remembered
    from minibox.engine.host import probes

    answer = probes.ask(probe, root if os.path.isdir(root) else _above(root))
    if subject and os.path.isdir(root) and answer.is_of_host:
        _remember(path, f"{subject} {answer.refusal or ABLE}")
    return answer.refusal


def _subject(root: str) -> str:
    """The kernel, since when it runs, and the file system; "" where it can't be told."""
    try:
        with open(BOOT_ID, "rb", 0) as file:
            boot = file.read().decode("ascii").strip()
        return f"{os.uname().release}:{boot}:{os.stat(root).st_dev}"
    except OSError:
        return ""


def _remember(path: str, answer: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        replace_link(path, answer)
    except OSError:
        pass  # the disk is full, or read-only: it is tried again


def _above(path: str) -> str:
    """The nearest directory above that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
