"""Whole trees of files, as values that can be compared."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minibox.storage import Snapshot, Snapshotter

#: Not an image's: those of overlayfs itself, and of the security modules.
FOREIGN_XATTRS = ("trusted.overlay.", "user.overlay.", "security.selinux", "security.apparmor")


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


KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "FIFO",
         stat.S_IFCHR: "character", stat.S_IFBLK: "block", stat.S_IFSOCK: "socket"}  # fmt: skip


def tree_of(top: Path, *, without: frozenset[bytes] = frozenset()) -> dict[bytes, File]:
    """All below a directory, by path; ``.`` is itself. What is listed and not there is an error."""
    root_fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found: dict[bytes, File] = {}
        inodes: dict[tuple[int, int], bytes] = {}
        for path in [b".", *sorted(_names(root_fd, b"", without))]:
            found[path] = _file(path, root_fd, inodes)
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


def _file(path: bytes, root_fd: int, inodes: dict[tuple[int, int], bytes]) -> File:
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
        kind, f"{stat.S_IMODE(status.st_mode):04o}", (status.st_uid, status.st_gid), status.st_mtime_ns, first,
        size, content, device, _xattrs(path, root_fd),
    )  # fmt: skip


def _xattrs(path: bytes, root_fd: int) -> tuple[tuple[str, bytes], ...]:
    name = os.fsencode(f"/proc/self/fd/{root_fd}/") + path
    return tuple(
        (each, os.getxattr(name, each, follow_symlinks=False))
        for each in sorted(os.listxattr(name, follow_symlinks=False))
        if not each.startswith(FOREIGN_XATTRS)
    )


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
