"""Pull an image from a registry into the store.

The name is set last, after every blob was downloaded and verified and every layer unpacked. If something goes wrong
before, the images in the store don't change. Complete blobs stay for the next attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any

from minibox.errors import ImageNotFound, RegistryError, StoreError
from minibox.image import progress
from minibox.image.layer.unpack import LayerSource
from minibox.image.layout.layout import PULLED_DIGEST, Descriptor, annotation, ref_name
from minibox.image.layout.manifest import chain_ids, choose, diff_ids, find_image, layer_descriptors
from minibox.image.platform import Platform, host_platform, platform_of, runs
from minibox.image.progress import OnProgress, Progress, silent
from minibox.image.reference import ImageName, Reference
from minibox.image.registry.client import Client
from minibox.image.registry.download import Downloads, is_damaged, is_there
from minibox.image.registry.repository import get_config, get_manifest, head_manifest, list_tags
from minibox.image.registry.validation import Document
from minibox.image.store import ImageStore
from minibox.record import record

Unpack = Callable[[Sequence[LayerSource], Callable[[str], None]], None]

DOWNLOADS_AT_ONCE = 4
INDEXES_DEEP_MAX = 4
STOP_TIMEOUT_S = 1.0


@record
class Pulled:
    """The result of a pull.

    Attributes:
        name: the image's name in the store.
        digest: the digest in the registry: of the index, if there is one.
        is_new: False if the store had it already.
        platform: the platform that the image is for.
    """

    name: str
    digest: str
    is_new: bool
    platform: Platform


class Pull:
    """Pulls images of one repository from the first of ``clients`` that has them.

    Args:
        unpack: unpacks the layers that aren't unpacked yet, given bottom first, and calls back with the chain ID of
            each.
        early: call ``unpack``, in this thread, while blobs are still downloading.
        platform: the platform to pull for; None for this machine's.
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
        """Return the repository's tags.

        Raises:
            RegistryError: the registry doesn't list them.
        """
        tags: list[str] = self._first(list_tags)[1]
        return tags

    def pull(self, reference: Reference) -> Pulled:
        """Download one image, unpack it and name it.

        Raises:
            RegistryError: the registry can't be reached, refuses, or sends something wrong.
            StoreError: a layer can't be unpacked, or the disk is full.
        """
        name = f"{reference.name}@{reference.digest}" if reference.digest else str(reference)
        with self._layout.adding():
            known = self._known(reference)
            if known is not None:
                digest = reference.digest or self._first(lambda client: head_manifest(client, reference.tag))[1]
                if digest == known.digest:
                    return known
            client, root = self._first(lambda client: get_manifest(client, reference.digest or reference.tag))
            manifest = self._choose(client, root)
            config_data, config = get_config(client, manifest)
            platform = platform_of(config)
            if self._wanted is not None and not runs(self._wanted, platform):
                raise RegistryError(f"{name} at {client.host} is for {platform}, not for {self._wanted}")
            self._bring_layers(client, manifest.value["layers"], config)
            self._layout.write_blob(config_data)
            self._layout.write_blob(manifest.data)
            annotations = {PULLED_DIGEST: root.digest} if root.digest != manifest.digest else {}
            descriptor = {**manifest.descriptor, "platform": platform.document(), "annotations": annotations}
            self._layout.set_name(name, descriptor)
        return Pulled(name, root.digest, known is None or known.digest != root.digest, platform)

    def _first(self, ask: Callable[[Client], Any]) -> tuple[Client, Any]:
        """Return the first client that answers, with its answer. Mirrors that fail are skipped."""
        *mirrors, last = self._clients
        for client in mirrors:
            try:
                return client, ask(client)
            except RegistryError:
                continue
        return last, ask(last)

    def _known(self, reference: Reference) -> Pulled | None:
        """Return the store's image of this name if it is complete, unpacked and for the right platform; or None."""
        name = str(reference)
        named = next((item for item in self._layout.descriptors() if ref_name(item) == name), None)
        try:
            image = find_image(self._layout, ImageName(name, reference), self._wanted) if named else None
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
            return None  # for another platform, or damaged: download what is missing or damaged
        return Pulled(name, annotation(named, PULLED_DIGEST) or named["digest"], False, platform)

    def _choose(self, client: Client, document: Document) -> Document:
        """Return the manifest in ``document`` for the platform to pull for."""
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
        """Download all layers, several at once, and unpack them as they arrive."""
        # First the registry that had the manifest, then the rest.
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
            # Don't wait long: a thread may be waiting for a registry, and Ctrl-C shouldn't.
            pool.shutdown(wait=False, cancel_futures=True)
            wait(kept, STOP_TIMEOUT_S)
            raise
        pool.shutdown()

    def _bring(self, downloads: Downloads, layer: Descriptor, came: Future[bool]) -> None:
        """In a thread: download a layer, and complete ``came`` so that it can be unpacked while we sync it to disk."""
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
        """Unpack the layers. If a blob that was in the store already is damaged, download it again."""
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
    """Wait until all are done. If one fails, raise its error."""
    for future in wait(futures, return_when=FIRST_EXCEPTION).done:
        future.result()
