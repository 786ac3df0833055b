"""cgroupfs: read and write its files, walk and remove its directories.

A container may have made cgroups below its own, of any depth, with paths of any length.
"""

from __future__ import annotations

import os
from errno import EBUSY, ENODEV, ENOENT, ESRCH
from time import monotonic, sleep

from minibox.base.files import AutoClose, closing
from minibox.errors import MiniboxError, kernel_says, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def read_file(path: str) -> str:
    """Return the text of a cgroup file of any size; "" if the cgroup is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts).decode()
    except OSError as error:
        if error.errno in (ENODEV, ESRCH):  # removed while we read it
            return ""
        raise
    finally:
        os.close(fd)


def write_file(path: str, value: str) -> None:
    """Write a value to a cgroup file."""
    with closing(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as fd:
        os.write(fd, value.encode())


def remove_directory(directory: str, deadline: float) -> None:
    """Remove a cgroup and those below it; retry until ``deadline``, a value of `time.monotonic`.

    Raises:
        MiniboxError: it still has processes, or the kernel refuses.
    """
    while True:
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != EBUSY:
                raise MiniboxError(f"remove cgroup {directory}: {kernel_says(error)}") from error
            if monotonic() > deadline:
                pids = read_file(f"{directory}/cgroup.procs").split()
                why = f": processes {' '.join(pids)} are in it" if pids else ""
                raise MiniboxError(f"remove cgroup {directory}: {kernel_says(error)}{why}") from error
        remove_below(directory)  # cgroups that the container made
        sleep(0.001)


def subtree(directory: str) -> Iterator[tuple[str, list[str]]]:
    """Yield ``directory`` and all cgroups below it, parents first. If there are none, it takes only one stat(2).

    Yields:
        A path that is valid until you ask for the next one, and the names on the way there from ``directory``.
    """
    yield directory, []
    try:
        if os.stat(directory).st_nlink <= 2:
            return
        walk = _Walk(directory)
    except FileNotFoundError:
        return
    with walk:
        while walk.next(remove=False):
            yield f"/proc/self/fd/{walk.fd}", walk.names


def remove_below(directory: str) -> None:
    """Remove the cgroups below one, except those with processes."""
    try:
        walk = _Walk(directory)
    except FileNotFoundError:
        return
    with walk:
        while walk.next(remove=True):
            pass


class _Walk(AutoClose):
    """A walk from a cgroup to all below it, with one descriptor: of the current one."""

    def __init__(self, directory: str) -> None:
        self.names: list[str] = []
        self.fd = os.open(directory, OPEN)
        self._waiting = [self._children()]

    def close(self) -> None:
        os.close(self.fd)

    def next(self, *, remove: bool) -> bool:
        """Go to the next cgroup; False at the end. With ``remove``, remove each cgroup that we leave for good."""
        while self._waiting:
            if self._waiting[-1]:
                name = self._waiting[-1].pop()
                if self._go_to(name):
                    self.names.append(name)
                    self._waiting.append(self._children())
                    return True
                continue
            self._waiting.pop()
            if not self.names:
                break
            if not self._go_to(".."):
                break  # it was removed meanwhile
            name = self.names.pop()
            if remove:
                with suppress(OSError):  # it has a process; removing the top will fail and say so
                    os.rmdir(name, dir_fd=self.fd)
        return False

    def _go_to(self, name: str) -> bool:
        try:
            fd = os.open(name, OPEN, dir_fd=self.fd)
        except OSError as error:
            if error.errno not in (ENOENT, ENODEV):
                raise
            return False
        os.close(self.fd)
        self.fd = fd
        return True

    def _children(self) -> list[str]:
        try:
            with os.scandir(self.fd) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            if error.errno not in (ENOENT, ENODEV):
                raise
            return []
