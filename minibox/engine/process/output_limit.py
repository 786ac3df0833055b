"""How much a container may write to its standard streams, together."""

from __future__ import annotations

import os
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ_BYTES = 1 << 16


class Allowance:
    """An amount of bytes. `move` copies as `streams.Copy` wants it, until they are spent.

    What was written up to then is passed on to the byte.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size = self._left = size_bytes
        self._lock = allocate_lock()
        self._on_spent: Callable[[], None] | None = None
        self._spent = False

    def when_spent(self, on_spent: Callable[[], None]) -> None:
        """Call that, in the thread that copies, when more is written; at once when it was already."""
        with self._lock:
            self._on_spent = on_spent
            spent = self._spent
        if spent:
            on_spent()

    @property
    def used_bytes(self) -> int:
        """What was passed on so far."""
        return self._size - self._left

    def move(self, source: int, target: int) -> int:
        """Read some and write it; 0 when there is no more.

        What is too much is read and dropped: it ends by the caller's word, and not by a pipe that is closed.
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
