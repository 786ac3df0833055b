"""Pulling: an image from a registry into the store.

The name is set last of all, when every blob is there and verified and every layer is unpacked: whatever
goes wrong before, the store's images are what they were. Blobs that came whole stay for the next attempt.
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from minibox.errors import RegistryError, StoreError
from minibox.image import progress
from minibox.image.layer import LayerSource
from minibox.image.layout import PULLED_DIGEST, annotation, ref_name
from minibox.image.manifest import chain_ids, choose, diff_ids, find_image, layer_descriptors
from minibox.image.platform import host_platform, platform_of, runs
from minibox.image.progress import Progress, silent
from minibox.image.registry.download import Downloads, is_damaged, is_there
from minibox.image.registry.repository import get_config, get_manifest, head_manifest, list_tags
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from minibox.image.layout import Descriptor
    from minibox.image.platform import Platform
    from minibox.image.progress import OnProgress
    from minibox.image.reference import Reference
    from minibox.image.registry.client import Client
    from minibox.image.registry.received import Document
    from minibox.image.store import ImageStore

    Unpack = Callable[[Sequence[LayerSource], Callable[[str], None]], None]

DOWNLOADS_AT_ONCE = 4
INDEXES_DEEP_MAX = 4
STOP_TIMEOUT_S = 1.0


@record
class Pulled:
    """What a pull has brought.

    Attributes:
        name: under which the store has it.
        digest: what the registry calls it by: of its index, where it has one.
        is_new: False when the store had it already.
        platform: that the image says it is for.
    """

    name: str
    digest: str
    is_new: bool
    platform: Platform


class Pull:
    """Pulls images of one repository from the first of ``clients`` that has them.

    Args:
        unpack: unpacks layers that it has not yet, given bottom first, and calls back with the chain ID
            of each; called again with more of them as they come.
        early: ``unpack`` may be called, in this thread, while others still download.
        platform: whose image is wanted; None for this machine's.
    """

    def __init__(
        self,
        store: ImageStore,
        clients: Sequence[Client],
        unpack: Unpack,
        *,
        early: bool = True,
        platform: Platform | None = None,
        on_progress: OnProgress = silent,
    ) -> None:
        self._layout = store.layout
        self._clients = clients
        self._unpack = unpack
        self._early = early
        self._wanted = platform
        self._tell = on_progress

    def tags(self) -> list[str]:
        """The repository's tags.

        Raises:
            RegistryError: the registry doesn't tell.
        """
        tags: list[str] = self._first(list_tags)[1]
        return tags

    def pull(self, reference: Reference) -> Pulled:
        """Bring one image, unpack it and name it.

        Raises:
            RegistryError: the registry can't be reached, refuses, or sends what is wrong.
            StoreError: a layer can't be unpacked, or the disk is full.
        """
        name = f"{reference.name}@{reference.digest}" if reference.digest else str(reference)
        with self._layout.adding():
            known = self._known(name)
            if known is not None:
                digest = reference.digest or self._first(lambda client: head_manifest(client, reference.tag))[1]
                if digest == known.digest:
                    return known
            client, root = self._first(lambda client: get_manifest(client, reference.digest or reference.tag))
            manifest = self._choose(client, root)
            config_data, config = get_config(client, manifest)
            platform = platform_of(config)
            if self._wanted is not None and not runs(self._wanted, platform):
                raise RegistryError(f"{name} at {client.host} is for {platform}, and not for {self._wanted}")
            self._bring_layers(client, manifest.value["layers"], config)
            self._layout.write_blob(config_data)
            self._layout.write_blob(manifest.data)
            annotations = {PULLED_DIGEST: root.digest} if root.digest != manifest.digest else {}
            platform_value = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
            descriptor = {
                **manifest.descriptor,
                "platform": {key: text for key, text in platform_value.items() if text},
            }
            self._layout.set_name(name, {**descriptor, "annotations": annotations})
        return Pulled(name, root.digest, known is None or known.digest != root.digest, platform)

    def _first(self, ask: Callable[[Client], Any]) -> tuple[Client, Any]:
        """The first client that has an answer, and the answer: mirrors that fail are passed by."""
        *mirrors, last = self._clients
        for client in mirrors:
            try:
                return client, ask(client)
            except RegistryError:
                continue
        return last, ask(last)

    def _known(self, name: str) -> Pulled | None:
        """What the store has under this name, whole and unpacked, for the platform that is wanted; or None."""
        named = next((item for item in self._layout.descriptors() if ref_name(item) == name), None)
        try:
            image = find_image(self._layout, name, self._wanted) if named else None
            if named is None or image is None:
                return None
            layers = [layer for layer, _ in layer_descriptors(self._layout, image.digest, image.config)]
            platform = platform_of(image.config)
            if not all(is_there(self._layout, layer) for layer in layers) or not runs(
                self._wanted or host_platform(), platform
            ):
                return None
            self._unpack(self._sources(layers, image.config), lambda _: None)
        except StoreError:
            return None  # damaged: what is wrong is brought anew
        return Pulled(name, annotation(named, PULLED_DIGEST) or named["digest"], False, platform)

    def _choose(self, client: Client, document: Document) -> Document:
        """The manifest that ``document`` means on the platform that is wanted."""
        for _ in range(INDEXES_DEEP_MAX):
            if not document.is_index:
                return document
            try:
                descriptor = choose(document.value, document.digest, self._wanted or host_platform())
            except StoreError as error:
                raise RegistryError(f"{client.host}: {error}", error.hint) from error
            document = get_manifest(client, descriptor["digest"], descriptor)
        raise RegistryError(f"{client.host}: image indexes are nested more than {INDEXES_DEEP_MAX} deep")

    def _sources(self, layers: Sequence[Descriptor], config: dict[str, Any]) -> list[LayerSource]:
        ids = diff_ids(config)
        return [
            LayerSource(blob_path=self._layout.blob_path(layer["digest"]), diff_id=diff_id, chain_id=chain_id)
            for layer, diff_id, chain_id in zip(layers, ids, chain_ids(ids), strict=True)
        ]

    def _bring_layers(self, client: Client, layers: Sequence[Descriptor], config: dict[str, Any]) -> None:
        """Download all layers, several at once, and unpack them in order as they come."""
        sources = self._sources(layers, config)
        # Who had the manifest first, then those that were left to ask.
        downloads = Downloads(self._layout, self._clients[self._clients.index(client) :], self._tell)
        unpacking = _Unpacking(self._unpack, downloads, layers, sources, self._tell)
        came: dict[str, Future[None]] = {layer["digest"]: Future() for layer in layers}
        pool = ThreadPoolExecutor(DOWNLOADS_AT_ONCE, thread_name_prefix="pull")
        by_digest = {layer["digest"]: layer for layer in layers}
        kept = [pool.submit(_bring, downloads, layer, came[digest]) for digest, layer in by_digest.items()]
        try:
            order = [came[layer["digest"]] for layer in layers]
            while unpacking.count < len(layers):
                unpacking.unpack(_wait_for_more(order, unpacking.count if self._early else len(layers) - 1))
            for future in kept:
                future.result()
        except BaseException:
            downloads.stop()
            # Not for long: one that waits for a registry's answer would make Ctrl-C wait, too.
            pool.shutdown(wait=False, cancel_futures=True)
            wait(kept, STOP_TIMEOUT_S)
            raise
        pool.shutdown()


class _Unpacking:
    """Unpacks the layers of one image from the bottom; ``count`` says how many are."""

    def __init__(
        self,
        unpack: Unpack,
        downloads: Downloads,
        layers: Sequence[Descriptor],
        sources: Sequence[LayerSource],
        on_progress: OnProgress,
    ) -> None:
        self.count = 0
        self._call = unpack
        self._downloads = downloads
        self._layers, self._sources = layers, sources
        self._tell = on_progress
        self._digests = {source.chain_id: layer["digest"] for layer, source in zip(layers, sources, strict=True)}

    def unpack(self, count: int) -> None:
        """Unpack up to ``count`` layers.

        A blob that was in the store already and turns out to be damaged is brought anew.
        """
        for layer in self._layers[self.count : count]:
            self._tell(Progress(layer["digest"], progress.EXTRACTING))
        try:
            self._call(self._sources[:count], self._unpacked)
        except StoreError as error:
            layers = {layer["digest"]: layer for layer in self._layers[:count]}
            damaged = [layer for layer in layers.values() if is_damaged(self._downloads.layout, layer["digest"])]
            if not damaged:
                raise self._naming_blob(error) from error
            for layer in damaged:
                self._downloads.fetch(layer, anew=True)
            self._call(self._sources[:count], self._unpacked)
        for source in self._sources[self.count : count]:
            self._unpacked(source.chain_id)
        self.count = count

    def _naming_blob(self, error: StoreError) -> StoreError:
        """``error`` tells of a diff ID: say which blob of whom that is."""
        for layer, source in zip(self._layers, self._sources, strict=True):
            if source.diff_id in str(error):
                return StoreError(f"blob {layer['digest']} from {self._downloads.host}: {error}", error.hint)
        return error

    def _unpacked(self, chain_id: str) -> None:
        if digest := self._digests.pop(chain_id, None):
            self._tell(Progress(digest, progress.PULLED))


def _bring(downloads: Downloads, layer: Descriptor, came: Future[None]) -> None:
    """In a thread: ``came`` is done when the layer can be unpacked; it is written to the disk meanwhile."""
    try:
        downloads.fetch(layer)
    except BaseException as error:
        came.set_exception(error)
        return
    came.set_result(None)
    downloads.sync(layer)


def _wait_for_more(order: Sequence[Future[None]], count: int) -> int:
    """How many layers from the bottom have come, once those are more than ``count``."""
    while True:
        done = [future for future in order if future.done()]
        for future in done:
            future.result()
        ready = next((index for index, future in enumerate(order) if future not in done), len(order))
        if ready > count:
            return ready
        wait([future for future in order if future not in done], return_when=FIRST_COMPLETED)
