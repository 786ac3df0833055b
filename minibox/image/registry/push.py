"""Push an image from the store to a registry, byte for byte, so that it keeps its digest.

First come the blobs, several at once, and then the manifest, which makes them an image with a tag.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from minibox.errors import InvalidReference, RegistryError, StoreError
from minibox.image.layout.layout import Descriptor, Layout, ref_name
from minibox.image.layout.manifest import INDEX_TYPES, MEDIA_TYPE_MANIFEST, find_image
from minibox.image.platform import Platform
from minibox.image.progress import OnProgress, silent
from minibox.image.reference import ImageName, Reference, parse
from minibox.image.registry.client import Client
from minibox.image.registry.transport import drop
from minibox.image.registry.upload import Uploads
from minibox.image.registry.validation import Document, digest_of, read_document

UPLOADS_AT_ONCE = 4
INDEXES_DEEP_MAX = 4


def push(
    layout: Layout,
    client: Client,
    descriptor: Descriptor,
    tag: str,
    mounts: dict[str, str],
    on_progress: OnProgress = silent,
) -> Descriptor:
    """Push the image or index ``descriptor`` of ``layout`` as ``tag``; return its descriptor.

    Args:
        mounts: for some digests, a repository of the same registry that probably has the blob already.

    Raises:
        StoreError: the image in the store is damaged, or a part of it is missing.
        RegistryError: the registry can't be reached or refuses.
    """
    documents = list(_documents(layout, descriptor))
    manifests = [document.value for document in documents if not document.is_index]
    layers = {layer["digest"]: layer for manifest in manifests for layer in manifest["layers"]}
    configs = {manifest["config"]["digest"]: manifest["config"] for manifest in manifests}
    uploads = Uploads(layout, client, mounts, on_progress)
    pool = ThreadPoolExecutor(UPLOADS_AT_ONCE, thread_name_prefix="push")
    futures = [pool.submit(uploads.send, blob) for blob in layers.values()]
    futures += [pool.submit(uploads.send, blob, silently=True) for blob in configs.values()]
    try:
        for future in as_completed(futures):
            future.result()
    except BaseException:
        uploads.stop()
        # Don't wait: a thread may be waiting for a registry, and Ctrl-C shouldn't.
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    # Push the manifests that an index lists before the index itself, which is the last document.
    *listed, root = documents
    for document in listed:
        _put(client, document, document.digest)
    _put(client, root, tag)
    return root.descriptor


def find_pushed(
    layout: Layout, name: ImageName, *, platform: Platform | None = None, all_platforms: bool = False
) -> Descriptor | None:
    """Return what to push for the image of that name: its manifest, or with ``all_platforms`` its index; None if not found.

    Args:
        platform: the platform to choose from an index; None for this machine's.

    Raises:
        ImageNotFound: the image is not for ``platform``.
        StoreError: the image is damaged.
    """
    image = find_image(layout, name, platform)
    if image is None:
        return None
    for item in layout.descriptors():
        if all_platforms and ref_name(item) == image.reference and item.get("mediaType") in INDEX_TYPES:
            return item
    # A manifest may lack its own media type (manifest.md: "SHOULD be used").
    media_type = layout.read_json(image.digest).get("mediaType") or MEDIA_TYPE_MANIFEST
    return {"digest": image.digest, "mediaType": media_type}


def mountable(layout: Layout, reference: Reference) -> dict[str, str]:
    """Return, by a layer's digest, another repository of the same registry that had it when it was pulled or pushed."""
    found: dict[str, str] = {}
    for item in layout.descriptors():
        try:
            named = parse(ref_name(item))
            if named.domain != reference.domain or named.path == reference.path:
                continue
            for document in _documents(layout, item):
                for layer in document.value.get("layers", ()):
                    found.setdefault(layer["digest"], named.path)
        except (InvalidReference, StoreError, RegistryError):
            continue
    return found


def _documents(layout: Layout, descriptor: Descriptor, depth: int = 0) -> Iterator[Document]:
    """Yield the manifest ``descriptor``; for an index, everything that it lists, and then itself."""
    digest = descriptor.get("digest", "")
    data = layout.read_blob(digest)
    document = read_document(data, descriptor.get("mediaType", ""), f"manifest {digest} in the store")
    if document.is_index:
        if depth == INDEXES_DEEP_MAX:
            raise StoreError(f"image indexes are nested more than {INDEXES_DEEP_MAX} deep")
        for item in document.value["manifests"]:
            yield from _documents(layout, item, depth + 1)
    yield document


def _put(client: Client, document: Document, name: str) -> None:
    what = f"push manifest {client.endpoint.repository}:{name}"
    headers = {"Content-Type": document.media_type, "Content-Length": str(len(document.data))}
    response = client.request(
        "PUT", client.url(f"manifests/{name}"), headers, lambda: [document.data], ok=(200, 201, 202), what=what
    )
    drop(response)
    stored = response.headers.get("Docker-Content-Digest", "")
    if stored and stored != digest_of(document.data):
        raise RegistryError(f"{what}: {client.host} stored it as {stored}, but its digest is {document.digest}")
