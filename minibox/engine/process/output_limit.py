"""The limit on how much a container may write to standard output and standard error together."""

from __future__ import annotations

import os
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ_BYTES = 1 << 16


class OutputLimit:
    """A number of bytes. `move` copies for `streams.Copy` exactly until they are used up."""

    def __init__(self, size_bytes: int) -> None:
        self._size = self._left = size_bytes
        self._lock = allocate_lock()
        self._on_spent: Callable[[], None] | None = None
        self._spent = False

    def when_spent(self, on_spent: Callable[[], None]) -> None:
        """Call ``on_spent`` once the limit is exceeded, in the thread that copies; right now if it already is."""
        with self._lock:
            self._on_spent = on_spent
            spent = self._spent
        if spent:
            on_spent()

    @property
    def used_bytes(self) -> int:
        """How much was copied so far."""
        return self._size - self._left

    def move(self, source: int, target: int) -> int:
        """Read a chunk and write it. Return its size, 0 at the end.

        Read and drop what exceeds the limit: the caller ends the container, which must not see a closed pipe first.
        """
        data = os.read(source, READ_BYTES)
        with self._lock:
            passed = data[: self._left]
            self._left -= len(passed)
            news = len(passed) < len(data) and not self._spent
            self._spent = self._spent or news
            on_spent = self._on_spent
        if news and on_spent:
            on_spent()
        view = memoryview(passed)
        while view:
            view = view[os.write(target, view) :]
        return len(data)
