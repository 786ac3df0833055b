"""Pulling: an image from a registry into the store.

The name is set last of all, when every blob is there and verified and every layer is unpacked: whatever
goes wrong before, the store's images are what they were. Blobs that came whole stay for the next attempt.
"""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from minibox.errors import ImageNotFound, RegistryError, StoreError
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
    from collections.abc import Callable, Iterable, Mapping, Sequence
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
        unpack: unpacks the layers that it has not yet, given bottom first, and calls back with the chain ID of each.
        early: ``unpack`` may be called, in this thread, with layers whose blobs are still coming.
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
            self._unpack(self._sources(layers, image.config, {}), lambda _: None)
        except (ImageNotFound, StoreError):
            return None  # another platform's, or damaged: what is wrong is brought anew
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

    def _sources(
        self, layers: Sequence[Descriptor], config: dict[str, Any], came: Mapping[str, Future[bool]]
    ) -> list[LayerSource]:
        ids = diff_ids(config)
        return [
            LayerSource(self._layout.blob_path(layer["digest"]), diff_id, chain_id, came.get(layer["digest"]))
            for layer, diff_id, chain_id in zip(layers, ids, chain_ids(ids), strict=True)
        ]

    def _bring_layers(self, client: Client, layers: Sequence[Descriptor], config: dict[str, Any]) -> None:
        """Download all layers, several at once, and unpack them as they come."""
        # Who had the manifest first, then those that were left to ask.
        downloads = Downloads(self._layout, self._clients[self._clients.index(client) :], self._tell)
        by_digest = {layer["digest"]: layer for layer in layers}
        came: dict[str, Future[bool]] = {digest: Future() for digest in by_digest}
        pool = ThreadPoolExecutor(DOWNLOADS_AT_ONCE, thread_name_prefix="pull")
        kept = [pool.submit(self._bring, downloads, layer, came[digest]) for digest, layer in by_digest.items()]
        try:
            if not self._early:
                _wait_for_all(kept)
                pool.shutdown()
            self._unpack_layers(downloads, layers, self._sources(layers, config, came))
            _wait_for_all(kept)
        except BaseException:
            downloads.stop()
            # Not for long: one that waits for a registry's answer would make Ctrl-C wait, too.
            pool.shutdown(wait=False, cancel_futures=True)
            wait(kept, STOP_TIMEOUT_S)
            raise
        pool.shutdown()

    def _bring(self, downloads: Downloads, layer: Descriptor, came: Future[bool]) -> None:
        """In a thread: ``came`` is done when the layer can be unpacked; it is written to the disk meanwhile."""
        try:
            is_new = downloads.fetch(layer)
        except BaseException as error:
            came.set_exception(error)
            raise
        if is_new:
            self._tell(Progress(layer["digest"], progress.EXTRACTING))
        came.set_result(is_new)
        downloads.sync(layer)

    def _unpack_layers(
        self, downloads: Downloads, layers: Sequence[Descriptor], sources: Sequence[LayerSource]
    ) -> None:
        """A blob that was in the store already and turns out to be damaged is brought anew."""
        untold = {source.chain_id: layer["digest"] for layer, source in zip(layers, sources, strict=True)}
        by_diff_id = {source.diff_id: layer for layer, source in zip(layers, sources, strict=True)}

        def tell(chain_id: str) -> None:
            if digest := untold.pop(chain_id, None):
                self._tell(Progress(digest, progress.PULLED))

        while True:
            try:
                self._unpack(sources, tell)
                break
            except StoreError as error:
                layer = next((layer for diff_id, layer in by_diff_id.items() if diff_id in str(error)), None)
                if layer is None:
                    raise
                if not is_damaged(self._layout, layer["digest"]):
                    raise StoreError(f"blob {layer['digest']} from {downloads.host}: {error}", error.hint) from error
            downloads.fetch(layer, anew=True)
            downloads.sync(layer)
        for source in sources:
            if source.coming is not None and source.coming.result():
                tell(source.chain_id)


def _wait_for_all(futures: Iterable[Future[None]]) -> None:
    """Until all are done, or one fails: then that is raised."""
    for future in wait(futures, return_when=FIRST_EXCEPTION).done:
        future.result()
