"""Pack layers of the image that is being built while its next lines run: reading, hashing and writing let them."""

from __future__ import annotations

from _queue import SimpleQueue  # queue would import more
from mmap import mmap
from threading import Thread

from minibox.build.image.make import packed
from minibox.build.steps.step import Cancelled
from minibox.errors import MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.build.steps.step import Place
    from minibox.image.layout.layout import Layout


class Packing:
    """A thread that packs layers, one after the other. Use it in a ``with`` statement, inside `Layout.adding`.

    Attributes:
        sizes: for each layer that it has packed, the size of its files.
    """

    def __init__(self, place: Place, layout: Layout) -> None:
        self._place, self._layout = place, layout
        self._chains: SimpleQueue[tuple[str, ...]] = SimpleQueue()
        self._thread: Thread | None = None
        self._is_stopped = mmap(-1, 1)  # the child that packs an ordinary user's files sees it, too
        self.sizes: dict[str, int] = {}

    def __enter__(self) -> Packing:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopped[0] = 1
        self.wait()

    def add(self, chain: tuple[str, ...]) -> None:
        """Pack the topmost layer of ``chain``. Only one thread may call this, in order of the lines."""
        self._chains.put(chain)
        if self._thread is None:
            self._thread = Thread(target=self._work, name="packing", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait until all are packed. What couldn't be packed is packed again by who makes the image, and fails there."""
        if self._thread:
            self._chains.put(())
            self._thread.join()
            self._thread = None

    def _check(self) -> None:
        if self._is_stopped[0]:
            raise Cancelled("the build was ended")

    def _work(self) -> None:
        while chain := self._chains.get():
            try:
                self._check()
                files_bytes = packed(self._place, self._layout, chain, self._check)[2]
            except (MiniboxError, OSError):
                continue
            if files_bytes is not None:
                self.sizes[chain[-1]] = files_bytes
