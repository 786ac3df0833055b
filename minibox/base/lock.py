"""A lock for reading, changing and writing a file: flock(2), which the kernel releases when the holder dies."""

from __future__ import annotations

import fcntl
import os

SHARED, ALONE = fcntl.LOCK_SH, fcntl.LOCK_EX


class Lock:
    """Lock a directory or a file for the length of a ``with`` block.

    Two locks on one path exclude each other within a process, too: don't take a lock again that you hold.
    """

    def __init__(self, path: str, kind: int = ALONE) -> None:
        """Prepare the lock; ``with`` takes it.

        Args:
            path: an existing directory or file.
        """
        self.path, self._kind, self.fd = path, kind, -1

    def __enter__(self) -> Lock:
        """Wait for the lock.

        Raises:
            OSError: the path doesn't exist or can't be opened; with the path.
        """
        fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, self._kind)
        except BaseException:
            os.close(fd)
            raise
        self.fd = fd
        return self

    def release(self) -> int:
        """Return the descriptor that holds the lock: it outlives the ``with`` block, until the caller closes it."""
        fd, self.fd = self.fd, -1
        return fd

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
