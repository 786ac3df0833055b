"""Private directories: made private, and accepted only if nobody else can write to them or replace them.

The path is walked from the root, one descriptor at a time. Anyone who can write to a directory on the way could replace
what comes after it. So each directory must belong to root or to the caller. If others may write to it too, like /tmp,
it must be sticky, and what comes after it must not be a symbolic link.
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
OVERFLOW_ID = 65534  # what an id that isn't mapped looks like
MODE = 0o700


def claim_directory(path: str, inside: Sequence[str] = ()) -> None:
    """Make a private directory, or check that the existing one is private.

    If it can't be made (no permission, no space), nothing is raised here: the code that uses it reports that.

    Args:
        path: absolute.
        inside: names of its subdirectories to close to others, if they exist.

    Raises:
        UnsafeDirectory: it belongs to another user, isn't a real directory, or others may write to it or replace it.
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
    """Tell whether there is a private directory at ``path``. Nothing is made."""
    return os.path.isdir(path) and why_not_ours(path) is None


def why_not_ours(path: str) -> UnsafeDirectory | None:
    """Return the error that `claim_directory` would raise, or None. Nothing is made."""
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
    """A walk down a path. Each descriptor is of the very directory that was checked, whatever has its name now."""

    def __init__(self, path: str, *, make: bool = True) -> None:
        self._path, self._make = path, make
        self._fd = -1
        self._shared = False  # others may make entries in the current directory
        self._links = 0

    def end(self) -> int:
        """Return a descriptor of the last directory, which belongs to this object."""
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
            raise _refused(self._path, f"{name} is not a directory")
        self._go_to(name)

    def _check_above(self, name: str) -> None:
        """Check that nobody else can replace ``name`` in the current directory."""
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
            return  # another process was faster; the next step checks whose it is
        if last:
            os.chmod(name, MODE, dir_fd=self._fd)  # independent of the umask; in a sticky directory it stays ours

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
    """Take others' permissions from a directory that an older version made readable for everybody."""
    try:
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        if S_ISDIR(status.st_mode) and status.st_mode & 0o077 and status.st_uid == os.geteuid():
            os.chmod(name, MODE, dir_fd=directory_fd)
    except OSError:
        pass  # it doesn't exist, or its file system has no modes


def _is_private(group: int) -> bool:
    """Tell whether only this user is in the group: distributions give each user a group with the user's number."""
    return group == os.getegid() == os.geteuid() != 0


def _is_trusted(user: int) -> bool:
    """Tell whether a user is this one or root, who can do anything. In a user namespace the host's root has no id."""
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
