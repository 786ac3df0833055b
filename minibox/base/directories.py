"""Directories that are ours alone: made so, and accepted only when nobody else can put anything into them or in their place.

A path is walked from the root by descriptors. Who may write to a directory on the way could put another in the place of what
follows: so each belongs to root or to the caller, and where others may write to it as well, as to /tmp, it is sticky and what
follows is no symbolic link.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISLNK, S_ISVTX, S_IWGRP, S_IWOTH

from minibox.errors import UnsafeDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
LINKS_MAX = 40  # path_resolution(7)
OVERFLOW_ID = 65534  # how ids look that aren't mapped
MODE = 0o700


def claim_directory(path: str, inside: Sequence[str] = ()) -> None:
    """Make a directory that is ours alone, or see that what is there is one.

    Where it can't be made, for want of permission or of space, it is left to who needs it to say so.

    Args:
        path: absolute.
        inside: names of directories in it that nobody else shall see into, where they are there.

    Raises:
        UnsafeDirectory: it is somebody else's, no real directory, or others may write to it or replace it.
    """
    walk = _Walk(path)
    try:
        try:
            fd = walk.end()
        except OSError:
            return
        _check_own(path, os.fstat(fd))
        for name in inside:
            _close_to_others(fd, name)
    finally:
        walk.close()


def is_ours(path: str) -> bool:
    """Is there a directory of that path that nobody else can change? Nothing is made."""
    return os.path.isdir(path) and why_not_ours(path) is None


def why_not_ours(path: str) -> UnsafeDirectory | None:
    """What `claim_directory` would raise. Nothing is made."""
    walk = _Walk(path, make=False)
    try:
        _check_own(path, os.fstat(walk.end()))
    except UnsafeDirectory as error:
        return error
    except OSError:
        return None
    finally:
        walk.close()
    return None


class _Walk:
    """The way to a directory; each descriptor is of what was looked at, whatever has its name now."""

    def __init__(self, path: str, *, make: bool = True) -> None:
        self._path, self._make = path, make
        self._fd = -1
        self._shared = False  # others may make entries in it
        self._links = 0

    def end(self) -> int:
        """A descriptor of the directory, which is this object's."""
        self._go_to("/")
        waiting = self._path.split("/")[::-1]
        while waiting:
            name = waiting.pop()
            if name not in ("", "."):
                self._step(name, waiting)
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _go_to(self, name: str) -> None:
        fd = os.open(name, LOOK | os.O_DIRECTORY, dir_fd=self._fd if self._fd >= 0 else None)
        self.close()
        self._fd = fd

    def _step(self, name: str, waiting: list[str]) -> None:
        self._check_above(name)
        try:
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            if not self._make:
                raise
            self._make_one(name, last=not any(waiting))
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        if self._shared and not _is_trusted(status.st_uid):
            raise _refused(self._path, f"{name} in it belongs to user {status.st_uid}")
        if S_ISLNK(status.st_mode):
            self._follow(name, waiting)
            return
        if not S_ISDIR(status.st_mode):
            raise _refused(self._path, f"{name} is no directory")
        self._go_to(name)

    def _check_above(self, name: str) -> None:
        """Nobody else can put another thing in the place of ``name``."""
        status = os.fstat(self._fd)
        if not _is_trusted(status.st_uid):
            raise _refused(self._path, f"{self._place()} above it belongs to user {status.st_uid}")
        self._shared = bool(status.st_mode & S_IWOTH)
        if self._shared and not status.st_mode & S_ISVTX:
            raise _refused(self._path, f"everybody may put something else in the place of {name} in {self._place()}")

    def _place(self) -> str:
        return os.readlink(f"/proc/self/fd/{self._fd}")

    def _make_one(self, name: str, *, last: bool) -> None:
        try:
            os.mkdir(name, MODE if last else 0o755, dir_fd=self._fd)
        except FileExistsError:
            return  # somebody was faster: who, is seen next
        if last:
            os.chmod(name, MODE, dir_fd=self._fd)  # whatever the umask is; in a sticky directory it stays ours

    def _follow(self, name: str, waiting: list[str]) -> None:
        self._links += 1
        if self._shared or self._links > LINKS_MAX:
            raise _refused(self._path, f"{name} is a symbolic link")
        target = os.readlink(name, dir_fd=self._fd)
        if target.startswith("/"):
            self.close()
            self._go_to("/")
        waiting += target.split("/")[::-1]


def _check_own(path: str, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise _refused(path, f"it belongs to user {status.st_uid}")
    if status.st_mode & S_IWOTH or (status.st_mode & S_IWGRP and not _is_private(status.st_gid)):
        raise _refused(path, "others may write to it", f"see what is in it, then: chmod go-w {path}")


def _close_to_others(directory_fd: int, name: str) -> None:
    """What older versions have made for everybody to read."""
    try:
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        if S_ISDIR(status.st_mode) and status.st_mode & 0o077 and status.st_uid == os.geteuid():
            os.chmod(name, MODE, dir_fd=directory_fd)
    except OSError:
        pass  # it isn't there, or on a file system without modes


def _is_private(group: int) -> bool:
    """Is it the group of this user alone, as distributions give each one that has his number?"""
    return group == os.getegid() == os.geteuid() != 0


def _is_trusted(user: int) -> bool:
    """Root may do what it likes anyway; and in a user namespace the host's root has no id."""
    return user in (0, os.geteuid()) or (user == OVERFLOW_ID and not _sees_all_ids())


def _sees_all_ids() -> bool:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() == ["0", "0", "4294967295"]


def _refused(path: str, why: str, fix: str = "") -> UnsafeDirectory:
    return UnsafeDirectory(
        f"use the directory {path}: {why}",
        fix
        or "set --root or --runroot (MINIBOX_ROOT, MINIBOX_RUNROOT, XDG_RUNTIME_DIR) to a directory of your own that "
        "nobody else may write to, or have its owner remove what is in the way",
    )
