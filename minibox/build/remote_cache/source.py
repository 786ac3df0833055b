"""Where a cache is read from: a registry, or a directory. The manifest and the config come first, a layer once it is needed."""

from __future__ import annotations

import os

from minibox.base.codec import plain
from minibox.base.files import open_to_read, read_file
from minibox.engine.resources.registry import Registries
from minibox.errors import RegistryError, kernel_says
from minibox.image.layout.layout import INDEX_BYTES_MAX
from minibox.image.progress import silent
from minibox.image.reference import is_digest
from minibox.image.reference import parse as parse_reference
from minibox.image.registry.client import NotFound
from minibox.image.registry.download import CHUNK_BYTES, Downloads, is_there
from minibox.image.registry.repository import get_blob, get_manifest
from minibox.image.registry.validation import CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX, digest_of, read_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.image.layout.layout import Descriptor, Layout
    from minibox.image.registry.client import Client
    from minibox.image.registry.validation import Document


class NoCache(RegistryError):
    """There is no cache, or not yet."""


class RegistrySource:
    """A tag of a registry. Any thread may use it."""

    def __init__(self, name: str, layout: Layout) -> None:
        self._reference, self._layout = parse_reference(name), layout
        self._registries = Registries(os.environ)
        self._clients = self._registries.clients(self._reference, "pull")
        self._downloads: Downloads | None = None

    def manifest(self) -> Document:
        """Get the manifest, from the first mirror that has it.

        Raises:
            NoCache: the registry has no such tag.
            RegistryError: it can't be reached, refuses, or sends something else.
        """
        wanted = self._reference.digest or self._reference.tag
        *mirrors, last = self._clients
        for client in mirrors:
            try:
                return self._from(client, get_manifest(client, wanted))
            except RegistryError:
                continue
        try:
            return self._from(last, get_manifest(last, wanted))
        except NotFound as error:
            raise NoCache(str(error)) from error

    def _from(self, client: Client, document: Document) -> Document:
        self._clients = self._clients[self._clients.index(client) :]
        self._downloads = Downloads(self._layout, self._clients, silent)
        return document

    def config(self, descriptor: Descriptor) -> bytes:
        """Get the config, and check its digest."""
        return get_blob(self._clients[0], descriptor, f"config {descriptor['digest']}", CONFIG_BYTES_MAX)

    def fetch(self, descriptor: Descriptor, *, anew: bool = False) -> None:
        """Bring a layer into the store unless it is there.

        Raises:
            RegistryError, StoreError: see `Downloads.fetch`.
            Stopped: `close` was called.
        """
        assert self._downloads
        self._downloads.fetch(descriptor, anew=anew)

    def close(self) -> None:
        """End what other threads are downloading."""
        if self._downloads:
            self._downloads.stop()
        self._registries.transport.close()


class DirectorySource:
    """An OCI image layout with one manifest in its index.json, as ``--cache-to type=local`` writes it."""

    def __init__(self, name: str, layout: Layout) -> None:
        self._path, self._layout = name, layout

    def manifest(self) -> Document:
        """Read the manifest.

        Raises:
            NoCache: there is no such directory.
            RegistryError: it is damaged.
        """
        try:
            manifests = plain(read_file(f"{self._path}/index.json", INDEX_BYTES_MAX))["manifests"]
            (descriptor,) = manifests
            digest, media_type = descriptor["digest"], descriptor["mediaType"]
            if not is_digest(digest) or not isinstance(media_type, str):
                raise ValueError("it has no descriptor")
        except FileNotFoundError as error:
            raise NoCache("there is no index.json in it") from error
        except OSError as error:
            raise RegistryError(f"read index.json: {kernel_says(error)}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RegistryError(f"its index.json doesn't list one manifest: {error}") from error
        return read_document(self._read(digest, MANIFEST_BYTES_MAX), media_type, f"manifest {digest}")

    def config(self, descriptor: Descriptor) -> bytes:
        """Read the config, and check its digest."""
        return self._read(descriptor["digest"], CONFIG_BYTES_MAX)

    def fetch(self, descriptor: Descriptor, *, anew: bool = False) -> None:
        """Copy a layer into the store unless it is there; see `RegistrySource.fetch`."""
        if not anew and is_there(self._layout, descriptor):
            return
        import hashlib

        digest, left = descriptor["digest"], descriptor["size"]
        hasher = hashlib.sha256()
        with self._layout.new_blob() as blob:
            try:
                with open(open_to_read(self._blob_path(digest)), "rb", buffering=0) as file:
                    while data := file.read(min(CHUNK_BYTES, left + 1)):
                        left -= len(data)
                        if left < 0:
                            break
                        hasher.update(data)
                        blob.write(data)
            except OSError as error:
                raise RegistryError(f"copy blob {digest}: {kernel_says(error)}") from error
            if left or f"sha256:{hasher.hexdigest()}" != digest:
                raise RegistryError(f"blob {digest} is damaged: it has another size or digest")
            self._layout.keep_blob(blob, digest, sync=False)

    def close(self) -> None:
        """Nothing is open."""

    def _blob_path(self, digest: str) -> str:
        return f"{self._path}/blobs/sha256/{digest[7:]}"

    def _read(self, digest: str, limit_bytes: int) -> bytes:
        try:
            data = read_file(self._blob_path(digest), limit_bytes)
        except OSError as error:
            raise RegistryError(f"read blob {digest}: {kernel_says(error)}") from error
        if digest_of(data) != digest:
            raise RegistryError(f"blob {digest} is damaged: its content has another digest")
        return data


Source = RegistrySource | DirectorySource
SOURCES: dict[str, type[RegistrySource] | type[DirectorySource]] = {
    "registry": RegistrySource,
    "local": DirectorySource,
}
