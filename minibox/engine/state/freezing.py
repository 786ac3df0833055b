"""Freezing and thawing a container: one who does it at a time, and whoever does it for a while puts back what he found.

On disk, ``root/freezing``:

    <id>  locked by who freezes or thaws that container. Its mode says whether the container is frozen for his sake: one
          of that mode that nobody holds was left by a killed one, and the next who comes by thaws the container (`collect`).
          A mode takes no room on a full disk.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from stat import S_IMODE

from minibox.engine.state import claim, containers
from minibox.errors import MiniboxError, kernel_says
from minibox.linux import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TO_STAY, FOR_A_WHILE = 0o600, 0o700


class Turn:
    """The right to freeze and thaw a container, while a ``with`` lasts: others wait."""

    def __init__(self, root: str, container_id: str) -> None:
        self._root, self._id, self._fd = root, container_id, -1

    def __enter__(self) -> Turn:
        """
        Raises:
            MiniboxError: its lock can't be made.
        """
        try:
            self._fd = claim.lock_new(_directory(self._root), self._id)
        except OSError as error:
            raise MiniboxError(f"lock {_directory(self._root)}/{self._id}: {kernel_says(error)}") from error
        try:
            _put_back(self._root, self._id, self._fd)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.unlink(f"{_directory(self._root)}/{self._id}")
        finally:
            os.close(self._fd)

    def freeze(self) -> None:
        """Freeze it for a while: if this process is killed, the next who comes by thaws it.

        Raises:
            MiniboxError: there is no freezer, or it took too long.
            OSError: it has ended.
        """
        os.fchmod(self._fd, FOR_A_WHILE)
        group_of(self._id).freeze()

    def thaw(self) -> None:
        """Let it go on, after `freeze` or as it is asked for."""
        group_of(self._id).thaw()
        self.keep()

    def keep(self) -> None:
        """It is to stay as it is."""
        os.fchmod(self._fd, TO_STAY)


@contextmanager
def frozen(root: str, container_id: str, on_note: Callable[[str], None]) -> Iterator[None]:
    """Stop a container's processes for the block, if it runs; one that is frozen already stays so.

    Args:
        on_note: called with a line when it can't be.
    """
    live = containers.owner(root, container_id)
    if not live or live.pid <= 0:
        yield
        return
    with Turn(root, container_id) as turn:
        if group_of(container_id).is_frozen():
            yield  # it is for who has frozen it to thaw it
            return
        try:
            try:
                turn.freeze()
            except MiniboxError as error:
                on_note(f"the container runs on while it is read: {error}")
            yield
        finally:
            turn.thaw()


def collect(root: str) -> None:
    """Thaw what killed ones left frozen."""
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
    """Thaw what was frozen for the sake of one that was killed; it had said "paused" if it was to stay so."""
    if S_IMODE(os.fstat(fd).st_mode) == FOR_A_WHILE:
        if containers.read(root, container_id)["Status"] != "paused":
            group_of(container_id).thaw()
        os.fchmod(fd, TO_STAY)


def _directory(root: str) -> str:
    return f"{root}/freezing"
