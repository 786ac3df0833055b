"""The caches of ``--cache-from`` during a build: look a line up, and bring what it has written.

What came from a cache is kept like a line of this machine, but its key says from which cache, and with what content. So
it is reused only by builds that name the cache, while that still lists the line. The same goes for what is made on it.
"""

from __future__ import annotations

import os
from threading import Lock

from minibox.build.image.make import note_packed
from minibox.build.line import CACHE, Line, key_of
from minibox.build.remote_cache.document import check_manifest, read_lines
from minibox.build.remote_cache.source import SOURCES, NoCache
from minibox.build.remote_cache.states import States
from minibox.build.steps.step import Cancelled
from minibox.engine.files.rootfs_setup import unpack_sources
from minibox.errors import BuildError, MiniboxError, StoreError
from minibox.image.layer.size import noted
from minibox.image.layer.unpack import LayerSource
from minibox.image.registry.download import Stopped, is_damaged
from minibox.storage.snapshot import keep_layer, release_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from minibox.build.cache import Cache
    from minibox.build.context.context import Selection
    from minibox.build.line import Key
    from minibox.build.remote_cache.document import CachedLine
    from minibox.build.remote_cache.source import Source
    from minibox.build.remote_cache.words import CachePlace
    from minibox.build.steps.step import Place, Running
    from minibox.image.layout.layout import Descriptor, Layout
    from minibox.storage.drivers import Snapshotter

    Chain = tuple[str, ...]
    T = TypeVar("T")


class _Opened:
    """A cache, read once."""

    def __init__(self, name: str, source: Source) -> None:
        self.name, self.source = name, source
        self.lines: Mapping[str, CachedLine] = {}


class RemoteCaches:
    """The caches that one build reads. Any thread may use it.

    Attributes:
        states: what the lines of the build start from.
    """

    def __init__(
        self,
        place: Place,
        layout: Layout,
        storage: Snapshotter,
        places: tuple[CachePlace, ...],
        running: Running,
        notice: Callable[[str], None],
    ) -> None:
        """
        Args:
            running: tells whether the build was ended.
            notice: told if a cache can't be used.
        """
        self.states = States(place, layout)
        self._place, self._layout, self._storage = place, layout, storage
        self._places, self._running, self._notice = places, running, notice
        self._opened: list[_Opened] | None = None
        self._lock = Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The caches that could be read."""
        return tuple(each.name for each in self._opened or () if each.lines)

    def find(
        self,
        cache: Cache,
        key: Key,
        below: Chain,
        layers: Chain,
        text: str,
        inputs: Mapping[str, str | Selection],
    ) -> Line | None:
        """Find a line that this machine doesn't have; bring it, and keep it in ``cache``.

        Args:
            below, layers: what it starts from: the layers of the base image, and those of lines.
            text: the line as it was written.
            inputs: what it reads.

        Raises:
            BuildError: a cache is BuildKit's.
            Cancelled: the build was ended.
        """
        wanted = self.states.key(key)
        for each in self._caches():
            entry = each.lines.get(wanted.id)
            if entry is None or entry.parent != self.states.content(below, layers):
                continue
            digest = entry.layer["digest"] if entry.layer else "nothing"
            own = key_of(key.parent, {**key.facts, CACHE: f"{each.name} {digest}"}, key.inputs)

            def bring(each: _Opened = each, entry: CachedLine = entry, own: Key = own) -> Line:
                return self._bring(each.source, entry, own, (*below, *layers), text)

            try:
                return cache.find_or_make(own, bring, inputs)[0]
            except Cancelled:
                raise
            except MiniboxError as error:
                self._notice(f"a line of the cache {each.name} can't be used: {error}")
        return None

    def close(self) -> None:
        """End what is being downloaded. You can call it twice, from any thread."""
        for each in self._opened or ():
            each.source.close()

    def _caches(self) -> list[_Opened]:
        with self._lock:
            if self._opened is None:
                self._opened = []
                for place in self._places:
                    self._open(place)
            self._running.check()
            return self._opened

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return self._running.beside(ask)
        except Stopped:
            raise Cancelled("the build was ended") from None

    def _open(self, place: CachePlace) -> None:
        assert self._opened is not None
        try:
            opened = _Opened(place.name, SOURCES[place.type](place.name, self._layout))
            self._opened.append(opened)
            document = self._asked(opened.source.manifest)
            check_manifest(document, place.name)
            config = self._asked(lambda: opened.source.config(document.value["config"]))
            opened.lines = read_lines(config, document.value["layers"])
        except (BuildError, Cancelled):
            raise
        except NoCache as error:
            self._notice(f"there is no cache {place.name}: {error}")
        except MiniboxError as error:
            self._notice(f"the cache {place.name} can't be used: {error}")

    def _bring(self, source: Source, entry: CachedLine, key: Key, chain: Chain, text: str) -> Line:
        """Make a line of this machine of one that a cache lists.

        Raises:
            RegistryError: its layer can't be had.
            StoreError: it can't be unpacked.
        """
        if entry.layer is None:
            return Line(key, text, entry.made_by, entry.made_s, chain, False, {}, 0)
        layer = f"sha256:{key.id}"
        blob = entry.layer
        self._asked(lambda: source.fetch(blob))
        keep_layer(self._place.root, self._place.driver, layer)
        try:
            self._unpack(source, entry.layer, (*chain, layer))
        except BaseException:
            release_layer(self._place.root, self._place.driver, layer)
            raise
        note_packed(self._place, layer, entry.layer["digest"], os.stat(self._blob_path(entry.layer)).st_size)
        if (files_bytes := noted(self._place.root, layer)) is not None:
            self.states.sizes[layer] = files_bytes
        size_bytes = self._storage.layer_bytes(layer)
        return Line(key, text, entry.made_by, entry.made_s, (*chain, layer), True, {}, size_bytes)

    def _unpack(self, source: Source, descriptor: Descriptor, chain: Chain) -> None:
        """Unpack a layer onto those that are there. If the store had its blob already, it may be damaged: bring it anew."""
        path, digest = self._blob_path(descriptor), descriptor["digest"]
        sources = [LayerSource("", each, each) for each in chain[:-1]] + [LayerSource(path, digest, chain[-1])]
        try:
            unpack_sources(self._storage, sources)
        except StoreError:
            if not is_damaged(self._layout, digest):
                raise
            self._asked(lambda: source.fetch(descriptor, anew=True))
            unpack_sources(self._storage, sources)

    def _blob_path(self, descriptor: Descriptor) -> str:
        return self._layout.blob_path(descriptor["digest"])
