"""Freeze and thaw a container, one process at a time. A process that freezes it only for a while thaws it afterwards.

On disk, ``root/freezing``:

    <id>  locked by the process that freezes or thaws the container. The file's mode says whether it freezes it only for a
          while. If such a file isn't locked, its process was killed: the next command thaws the container (`collect`).
          We use the mode because it can be set on a full disk.
"""

from __future__ import annotations

import fcntl
import os
from stat import S_IMODE

from minibox.base.files import closing
from minibox.engine.state import claim, containers
from minibox.errors import MiniboxError, on_failure, trying
from minibox.linux import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TO_STAY, FOR_A_WHILE = 0o600, 0o700


class Turn:
    """The right to freeze and thaw a container, for the length of a ``with`` block. Other processes wait."""

    def __init__(self, root: str, container_id: str) -> None:
        self._root, self._id, self._fd = root, container_id, -1

    def __enter__(self) -> Turn:
        """
        Raises:
            MiniboxError: its lock can't be made.
        """
        with trying(MiniboxError, f"lock {_directory(self._root)}/{self._id}"):
            self._fd = claim.lock_new(_directory(self._root), self._id)
        with on_failure(self.__exit__):
            _put_back(self._root, self._id, self._fd)
        return self

    def __exit__(self, *_: object) -> None:
        with closing(self._fd):
            os.unlink(f"{_directory(self._root)}/{self._id}")

    def freeze(self) -> None:
        """Freeze the container for a while. If this process is killed, the next command thaws it.

        Raises:
            MiniboxError: there is no freezer, or it took too long.
            OSError: the container has ended.
        """
        os.fchmod(self._fd, FOR_A_WHILE)
        group_of(self._id).freeze()

    def thaw(self) -> None:
        """Thaw the container."""
        group_of(self._id).thaw()
        self.keep()

    def keep(self) -> None:
        """Leave the container frozen or thawed as it is now, even if this process is killed."""
        os.fchmod(self._fd, TO_STAY)


class frozen:
    """Freeze a running container for a ``with`` block. One that is already frozen stays frozen.

    Args:
        on_note: called with a line of text if it can't be frozen.
    """

    def __init__(self, root: str, container_id: str, on_note: Callable[[str], None]) -> None:
        self._root, self._id, self._on_note = root, container_id, on_note
        self._turn: Turn | None = None
        self._thaws = False

    def __enter__(self) -> None:
        live = containers.owner(self._root, self._id)
        if not live or live.pid <= 0:
            return
        self._turn = Turn(self._root, self._id).__enter__()
        with on_failure(self.__exit__):
            if group_of(self._id).is_frozen():
                return  # somebody paused it, and resumes it
            self._thaws = True
            try:
                self._turn.freeze()
            except MiniboxError as error:
                self._on_note(f"the container keeps running while it is read: {error}")

    def __exit__(self, *_: object) -> None:
        turn, self._turn = self._turn, None
        if turn is None:
            return
        try:
            if self._thaws:
                turn.thaw()
        finally:
            turn.__exit__()


def collect(root: str) -> None:
    """Thaw the containers that killed processes left frozen."""
    for name in os.listdir(_directory(root)):
        path = f"{_directory(root)}/{name}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                _put_back(root, name, fd)
                os.unlink(path)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)


def group_of(container_id: str) -> cgroup.Cgroup:
    """The cgroup of a container."""
    return cgroup.find(cgroup.detect(), f"minibox-{container_id}")


def _put_back(root: str, container_id: str, fd: int) -> None:
    """Thaw a container that a killed process had frozen for a while, unless its state says "paused"."""
    if S_IMODE(os.fstat(fd).st_mode) == FOR_A_WHILE:
        if containers.read(root, container_id)["Status"] != "paused":
            group_of(container_id).thaw()
        os.fchmod(fd, TO_STAY)


def _directory(root: str) -> str:
    return f"{root}/freezing"
