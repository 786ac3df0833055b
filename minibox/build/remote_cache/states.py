"""What a build's lines start from, in words that every machine has.

On disk a layer has a name of this machine: a line that was carried out again with ``--no-cache``, or that came from
another machine, has another than the first. So two other things tell states apart elsewhere:

- its *state*: the keys of the lines that made it, whatever they wrote. A line is looked up by its key on that.
- its *content*: the chain ID of its layers. A line's layer only fits on the very files that it was made on.
"""

from __future__ import annotations

from threading import Lock

from minibox.build.image.make import packed
from minibox.build.line import key_of
from minibox.image.layout.manifest import chain_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.build.line import Key
    from minibox.build.steps.step import Place
    from minibox.image.layout.layout import Layout

PREFIX = "sha256:"


class States:
    """The states of one build. Any thread may use it.

    Attributes:
        sizes: for each layer that it has packed, the size of its files; see `make_image`.
    """

    def __init__(self, place: Place, layout: Layout) -> None:
        self._place, self._layout = place, layout
        self._states: dict[str, str] = {}
        self._contents: dict[str, str] = {}
        self._lock = Lock()
        self.sizes: dict[str, int] = {}

    def key(self, key: Key) -> Key:
        """Return a line's key, as every machine computes it."""
        inputs = {name: self._state(PREFIX + each).removeprefix(PREFIX) for name, each in key.inputs.items()}
        return key_of(self._state(key.parent), key.facts, inputs)

    def note(self, layer: str, key: Key) -> None:
        """Note that a layer is that of the line ``key``, as `key` has returned it."""
        with self._lock:
            self._states[layer] = f"{PREFIX}{key.id}"

    def content(self, below: tuple[str, ...], layers: tuple[str, ...]) -> str:
        """Return the chain ID of what is on disk: of lines' ``layers`` on those of a base image. It packs new layers."""
        if not layers:
            return below[-1]
        with self._lock:
            if found := self._contents.get(layers[-1]):
                return found
        diff_id = self.pack((*below, *layers))[0]
        found = chain_ids([self.content(below, layers[:-1]), diff_id])[-1]
        with self._lock:
            self._contents[layers[-1]] = found
        return found

    def pack(self, chain: tuple[str, ...]) -> tuple[str, int]:
        """Return diff ID and size of the topmost layer of ``chain``; pack it if it isn't packed yet."""
        diff_id, size, files_bytes = packed(self._place, self._layout, chain)
        if files_bytes is not None:
            with self._lock:
                self.sizes[chain[-1]] = files_bytes
        return diff_id, size

    def _state(self, layer: str) -> str:
        with self._lock:
            return self._states.get(layer, layer)
