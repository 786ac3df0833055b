"""The one lock of those who read something, change it and write it: flock(2), which the kernel drops with its holder."""

from __future__ import annotations

import fcntl
import os

SHARED, ALONE = fcntl.LOCK_SH, fcntl.LOCK_EX


class Lock:
    """A directory or a file, locked for as long as a ``with`` lasts.

    Two of one process exclude each other too: who holds one must not ask for it again.
    """

    def __init__(self, path: str, kind: int = ALONE) -> None:
        """Nothing is locked yet.

        Args:
            path: a directory; or a file, which is there.
        """
        self.path, self._kind, self.fd = path, kind, -1

    def __enter__(self) -> Lock:
        """Wait for it.

        Raises:
            OSError: it isn't there; with the path.
        """
        fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, self._kind)
        except BaseException:
            os.close(fd)
            raise
        self.fd = fd
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        self.fd = -1
