"""Whole trees of files, as values that can be compared."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from minibox.image.layer.owners import ACL_ENTRY, ACL_GROUP, ACL_HEADER_BYTES, ACL_USER, Owners

if TYPE_CHECKING:
    from minibox.storage.drivers import Snapshotter
    from minibox.storage.snapshot import Snapshot

#: Not an image's: those of xfs and overlayfs themselves, and of the security modules.
FOREIGN_XATTRS = ("trusted.SGI_ACL_", "trusted.overlay.", "user.overlay.", "security.selinux", "security.apparmor")


@dataclass(frozen=True)
class File:
    """All that stat(2), readlink(2), read(2) and xattr(7) tell of a file.

    Attributes:
        first: the first name of the same inode, in the tree's order.
        size: of a regular file; 0 for another.
        content: its digest, or the target of a symlink.
    """

    kind: str
    mode: str
    owner: tuple[int, int]
    mtime_ns: int
    first: bytes
    size: int = 0
    content: str | bytes = ""
    device: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()


#: Of whatever was changed since the tests began, and got no time of its own.
NOW = 1 << 62
BEGUN_NS = time.time_ns() - 1_000_000_000
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "FIFO",
         stat.S_IFCHR: "character", stat.S_IFBLK: "block", stat.S_IFSOCK: "socket"}  # fmt: skip


def tree_of(top: Path, *, without: frozenset[bytes] = frozenset(), owners: Owners | None = None) -> dict[bytes, File]:
    """All below a directory, by path; ``.`` is itself. What is listed and not there is an error.

    Args:
        owners: whose the files are, where it isn't as it seems: those of a container with a user namespace.
    """
    root_fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found: dict[bytes, File] = {}
        inodes: dict[tuple[int, int], bytes] = {}
        for path in [b".", *sorted(_names(root_fd, b"", without))]:
            found[path] = _file(path, root_fd, inodes, owners or Owners())
        return found
    finally:
        os.close(root_fd)


def _names(root_fd: int, above: bytes, without: frozenset[bytes]) -> Iterator[bytes]:
    """By descriptors, since a path may be longer than a system call takes."""
    waiting = [above]
    while waiting:
        directory = waiting.pop()
        fd = os.open(directory or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root_fd)
        try:
            for name in map(os.fsencode, os.listdir(fd)):
                path = directory + b"/" + name if directory else name
                if path in without:
                    continue
                yield path
                if stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
                    waiting.append(path)
        finally:
            os.close(fd)


def _file(path: bytes, root_fd: int, inodes: dict[tuple[int, int], bytes], owners: Owners) -> File:
    status = os.lstat(path, dir_fd=root_fd)
    kind = KINDS[stat.S_IFMT(status.st_mode)]
    content: str | bytes = ""
    size = device = 0
    if kind == "symlink":
        content = os.readlink(path, dir_fd=root_fd)
    elif kind == "file":
        size = status.st_size
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=root_fd)
        with open(fd, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif kind in ("character", "block"):
        device = status.st_rdev
    first = path if kind == "directory" else inodes.setdefault((status.st_dev, status.st_ino), path)
    return File(
        kind, f"{stat.S_IMODE(status.st_mode):04o}", owners.of(status), _time(status), first,
        size, content, device, _xattrs(path, root_fd, owners),
    )  # fmt: skip


def _xattrs(path: bytes, root_fd: int, owners: Owners) -> tuple[tuple[str, bytes], ...]:
    name = os.fsencode(f"/proc/self/fd/{root_fd}/") + path
    return tuple(
        (each, _portable(each, owners.xattr(each, os.getxattr(name, each, follow_symlinks=False))))
        for each in sorted(os.listxattr(name, follow_symlinks=False))
        if not each.startswith(FOREIGN_XATTRS)
    )


def _portable(name: str, value: bytes) -> bytes:
    """Without the ids of an ACL's entries that have none: file systems answer this or that."""
    if not name.startswith("system.posix_acl_"):
        return value
    entries = [
        (tag, permissions, number if tag in (ACL_USER, ACL_GROUP) else 0)
        for tag, permissions, number in ACL_ENTRY.iter_unpack(value[ACL_HEADER_BYTES:])
    ]
    return value[:ACL_HEADER_BYTES] + b"".join(ACL_ENTRY.pack(*each) for each in entries)


def _time(status: os.stat_result) -> int:
    return NOW if status.st_mtime_ns >= BEGUN_NS else status.st_mtime_ns


def differences(one: dict[bytes, File], other: dict[bytes, File]) -> list[str]:
    """What a failing test should say: a line for each path that isn't the same in both."""
    return [
        f"{path!r}: {one.get(path)} / {other.get(path)}"
        for path in sorted(one.keys() | other.keys())
        if one.get(path) != other.get(path)
    ]


def of_container(tree: dict[bytes, File]) -> dict[bytes, File]:
    """Without the time of the root, which some drivers make with the container."""
    return {**tree, b".": replace(tree[b"."], mtime_ns=0)}


@contextmanager
def mounted(storage: Snapshotter, snapshot: Snapshot) -> Iterator[Path]:
    """A container's root file system, mounted as the container sees it but for what is mounted in it."""
    if snapshot.kind == "tree":
        yield Path(snapshot.upper)
        return
    with ExitStack() as stack:
        fds: list[int] = []
        for path in snapshot.lowers:
            fds.append(storage.open_lower(path))
            stack.callback(os.close, fds[-1])
        point = stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
        lowers = ":".join(f"/proc/{os.getpid()}/fd/{fd}" for fd in fds)
        work = f"{os.path.dirname(snapshot.upper)}/work"
        options = f"lowerdir={lowers},upperdir={snapshot.upper},workdir={work},redirect_dir=off,metacopy=off"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, point], check=True)
        stack.callback(subprocess.run, ["umount", point], check=True)
        yield Path(point)


def tree_of_snapshot(
    storage: Snapshotter, snapshot: Snapshot, *, without: frozenset[bytes] = frozenset()
) -> dict[bytes, File]:
    """`tree_of` a container's root file system."""
    with mounted(storage, snapshot) as top:
        return of_container(tree_of(top, without=without))
