"""The directories of minibox: where they are, and that nobody else can change them."""

from __future__ import annotations

import os

from minibox.base.directories import claim_directory
from minibox.base.paths import absolute
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

READABLE_ONCE = ("images", "cache", "volumes")  # older versions made them readable for everyone


@record
class Home:
    """Where minibox keeps its state. Each door makes one and passes it on.

    Attributes:
        root: the directory of images, layers, volumes and containers.
        runroot: the directory of what may be lost at a reboot, such as events, leases and sockets. "" if none is
            needed; then no events are recorded.
    """

    root: str
    runroot: str = ""

    def claimed(self) -> Home:
        """Make both directories private before anything is read or written there.

        In a process that does so often, only the directories themselves are looked at again: nobody else can replace
        them, nor what is above them.

        Raises:
            UnsafeDirectory: another user could change what is in one of them.
        """
        if not _claimed or _claimed.get(self) != self._statuses():
            seen: dict[str, os.stat_result] = {}
            claim_directory(self.root, READABLE_ONCE, seen)
            claim_directory(self.runroot, ("network",), seen)
            _claimed[self] = self._statuses() or None
        return self

    def _statuses(self) -> tuple[int, ...]:
        """Return what tells whether one of the directories was replaced or opened to others; () if one doesn't exist."""
        found = [os.geteuid()]
        try:
            for path in (self.root, self.runroot):
                status = os.stat(path)
                found += status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_gid
        except OSError:
            return ()
        return tuple(found)


#: What this process has claimed, and what it was then. A directory that doesn't exist is never equal to this.
_claimed: dict[Home, tuple[int, ...] | None] = {}


def find_home(
    root: str | os.PathLike[str] | None, runroot: str | os.PathLike[str] | None, environ: Mapping[str, str], uid: int
) -> Home:
    """Return the directories that were given, or else those of the environment or of the user."""
    return Home(
        absolute(os.fspath(root)) if root else default_root(environ, uid),
        absolute(os.fspath(runroot)) if runroot else default_runroot(environ, uid),
    )


def default_root(environ: Mapping[str, str], uid: int) -> str:
    """Return ``$MINIBOX_ROOT``; else /var/lib/minibox for root, or ``$XDG_DATA_HOME/minibox``."""
    chosen = environ.get("MINIBOX_ROOT")
    if chosen:
        return absolute(chosen)
    if uid == 0:
        return "/var/lib/minibox"
    data_home = environ.get("XDG_DATA_HOME") or os.path.join(_home(environ, uid), ".local/share")
    return os.path.join(absolute(data_home), "minibox")


def default_runroot(environ: Mapping[str, str], uid: int) -> str:
    """Return ``$MINIBOX_RUNROOT``; else /run/minibox for root, or ``$XDG_RUNTIME_DIR/minibox``.

    Without a login session there is no ``$XDG_RUNTIME_DIR``: use /run/user/<uid> if it exists, or else a directory in
    /tmp, whose owner `Home.claimed` checks.
    """
    chosen = environ.get("MINIBOX_RUNROOT")
    if chosen:
        return absolute(chosen)
    if uid == 0:
        return "/run/minibox"
    session = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    return f"{session}/minibox" if os.access(session, os.W_OK) else f"/tmp/minibox-{uid}"


def _home(environ: Mapping[str, str], uid: int) -> str:
    if home := environ.get("HOME"):
        return home
    import pwd

    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/tmp"
