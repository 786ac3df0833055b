"""Private directories: made private, and accepted only if nobody else can write to them or replace them.

The path is walked from the root. Anyone who can write to a directory on the way could replace what comes after it. So
each directory must belong to root or to the caller. If others may write to it too, like /tmp, it must be sticky, and
what comes after it must not be a symbolic link.

So it is enough to look at each directory once by its path: nobody else can change what we saw before.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISLNK, S_ISVTX, S_IWGRP, S_IWOTH

from minibox.errors import UnsafeDirectory, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LINKS_MAX = 40  # path_resolution(7)
TRIES_MAX = 100  # while others make and remove what we want to make
OVERFLOW_ID = 65534  # what an id that isn't mapped looks like
MODE = 0o700


def claim_directory(path: str, inside: Sequence[str] = (), seen: dict[str, os.stat_result] | None = None) -> None:
    """Make a private directory, or check that the existing one is private.

    If it can't be made (no permission, no space), nothing is raised here: the code that uses it reports that. But where
    others may write, such as in /tmp, anybody could make it a moment later: there it is an error.

    Args:
        path: absolute.
        inside: names of its subdirectories to close to others, if they exist.
        seen: what was seen on the way to another one just now, and is added to.

    Raises:
        UnsafeDirectory: it belongs to another user, isn't a real directory, or others may write to it, replace it or
            make it.
    """
    walk = _Walk(path, seen=seen)
    try:
        found, status = walk.end()
    except OSError:
        return
    walk.check_own(status)
    for name in inside:
        _close_to_others(f"{found}/{name}", walk.user)


def is_ours(path: str) -> bool:
    """Tell whether there is a private directory at ``path``. Nothing is made."""
    return os.path.isdir(path) and why_not_ours(path) is None


def why_not_ours(path: str) -> UnsafeDirectory | None:
    """Return the error that `claim_directory` would raise, or None. Nothing is made."""
    walk = _Walk(path, make=False)
    try:
        walk.check_own(walk.end()[1])
    except UnsafeDirectory as error:
        return error
    except OSError:
        return None
    return None


class _Walk:
    """A walk down a path. The path so far contains no symbolic link."""

    def __init__(self, path: str, *, make: bool = True, seen: dict[str, os.stat_result] | None = None) -> None:
        self._path, self._make = path, make
        self.user = os.geteuid()
        self._seen = {} if seen is None else seen
        self._here = ""  # "" is the root directory
        self._status = self._seen.get("") or self._seen.setdefault("", os.lstat("/"))
        self._links = 0

    def end(self) -> tuple[str, os.stat_result]:
        """Return the path of the last directory, and its status."""
        waiting = self._path.split("/")[::-1]
        while waiting:
            name = waiting.pop()
            if name == "..":
                self._go_to(self._here.rpartition("/")[0])
            elif name not in ("", "."):
                self._step(name, waiting)
        try:
            return self._here, os.lstat(f"{self._here}/.")  # triggers an automount
        except PermissionError:
            return self._here, self._status

    def _go_to(self, path: str) -> None:
        self._here, self._status = path, os.lstat(path or "/")

    def _step(self, name: str, waiting: list[str]) -> None:
        above = self._status
        shared = bool(above.st_mode & S_IWOTH)
        if shared or above.st_uid not in (0, self.user):
            self._check_above(name)
        path = f"{self._here}/{name}"
        status = self._seen.get(path)
        if status is None:
            try:
                status = self._seen[path] = self._look(path, last=not any(waiting))
            except OSError as error:
                if shared and self._make:
                    raise _refused(self._path, f"make {name} in it: {error.strerror}") from None
                raise
        if status.st_dev != self._status.st_dev:  # this look may have triggered an automount: check again
            self._status = os.lstat(f"{self._here}/.")
            shared = self._check_above(name)
        if shared and not self._is_trusted(status.st_uid):
            raise _refused(self._path, f"{name} in it belongs to user {status.st_uid}")
        if S_ISLNK(status.st_mode):
            self._follow(path, waiting, shared=shared)
        elif S_ISDIR(status.st_mode):
            self._here, self._status = path, status
        else:
            raise _refused(self._path, f"{name} is not a directory")

    def _look(self, path: str, *, last: bool) -> os.stat_result:
        """Return what is at ``path``; make a directory if nothing is there."""
        for _ in range(TRIES_MAX if self._make else 1):
            with suppress(FileNotFoundError):
                return os.lstat(path)
            if self._make:
                _make_one(path, last=last)
        return os.lstat(path)

    def _check_above(self, name: str) -> bool:
        """Check that nobody else can replace ``name`` in the current directory; tell whether others may write there."""
        above = self._status
        if not self._is_trusted(above.st_uid):
            raise _refused(self._path, f"{self._here or '/'} above it belongs to user {above.st_uid}")
        shared = bool(above.st_mode & S_IWOTH)
        if shared and not above.st_mode & S_ISVTX:
            place = self._here or "/"
            raise _refused(self._path, f"anybody could replace {name} in {place}")
        return shared

    def _follow(self, path: str, waiting: list[str], *, shared: bool) -> None:
        self._links += 1
        if shared or self._links > LINKS_MAX:
            raise _refused(self._path, f"{os.path.basename(path)} is a symbolic link")
        target = os.readlink(path)
        if target.startswith("/"):
            self._go_to("")
        waiting += target.split("/")[::-1]

    def check_own(self, status: os.stat_result) -> None:
        """Check the last directory.

        Raises:
            UnsafeDirectory: it belongs to another user, or others may write to it.
        """
        if status.st_uid != self.user:
            raise _refused(self._path, f"it belongs to user {status.st_uid}")
        if status.st_mode & S_IWOTH or (status.st_mode & S_IWGRP and not self._is_private(status.st_gid)):
            fix = f"see what is in it, then: chmod go-w {self._path}"
            raise _refused(self._path, "others may write to it", fix)

    def _is_private(self, group: int) -> bool:
        """Tell whether only this user is in the group: distributions give each user a group with the user's number."""
        return group == os.getegid() == self.user != 0

    def _is_trusted(self, user: int) -> bool:
        """Tell whether a user is this one or root, who can do anything. In a user namespace, host root has no id."""
        return user in (0, self.user) or (user == OVERFLOW_ID and not _sees_all_ids())


def _make_one(path: str, *, last: bool) -> None:
    try:
        os.mkdir(path, MODE if last else 0o755)
    except FileExistsError:
        return  # another process was faster; the next step checks whose it is
    if last:
        os.chmod(path, MODE)  # independent of the umask; in a sticky directory it stays ours


def _close_to_others(path: str, user: int) -> None:
    """Take others' permissions from a directory that an older version made readable for everybody."""
    with suppress(OSError):  # it doesn't exist, or its file system has no modes
        status = os.lstat(path)
        if S_ISDIR(status.st_mode) and status.st_mode & 0o077 and status.st_uid == user:
            os.chmod(path, MODE)


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
