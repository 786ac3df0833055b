"""The image store: only what a start needs of it, because this is the hot path.

On disk under ``root``:

    images/                  an OCI image layout (`minibox.image.layout.layout`), readable by other tools
    layers/<chain id>/diff   unpacked layers (`minibox.image.layer.unpack`)
    cache/resolve/           cached answers of `ImageStore.resolve`, by reference, in marshal format

Code that reads JSON, hashes or unpacks is imported when needed.
"""

from __future__ import annotations

import os

from minibox.base.cache import read_cache, write_cache
from minibox.image.layout.image import ResolvedImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.image.layer.unpack import LayerSource
    from minibox.image.layout.layout import Layout
    from minibox.image.reference import ImageName

CACHE_FORMAT = 2
CACHE_VALUES = 5
CACHED_REFERENCE_LENGTH_MAX = 200


class ImageStore:
    """The images under ``root``. Making this object touches nothing on disk."""

    __slots__ = ("_cache_path", "_index_path", "_resolved_version", "root")

    def __init__(self, root: str) -> None:
        self.root = root
        self._index_path = f"{root}/images/index.json"
        self._cache_path = f"{root}/cache/resolve"
        self._resolved_version: tuple[int, int, int] | None = None

    @property
    def layout(self) -> Layout:
        """The OCI image layout with the blobs and the names."""
        from minibox.image.layout.layout import Layout

        return Layout(self.root)

    def resolve(self, reference: str) -> ResolvedImage:
        """Find the image that ``reference`` names; make a built-in one if it doesn't exist yet.

        ``reference`` may be a name, ``NAME@DIGEST``, a digest, or the beginning of an image's id.

        Raises:
            InvalidReference: ``reference`` is malformed, or the beginning of several ids.
            ImageNotFound: no such image is in the store.
            StoreError: the store is damaged, full or unreadable.
        """
        if image := self.cached(reference):
            return image
        from minibox.image.reference import parse_name

        return self.find(parse_name(reference))

    def cached(self, reference: str) -> ResolvedImage | None:
        """Return the image if it was resolved before by the same text, and no image was changed since."""
        self._resolved_version = version = self._index_version()
        cache_name = self._cache_name(reference)
        if version is not None and cache_name is not None:
            values = read_cache(cache_name, (CACHE_FORMAT, *version, reference))
            if values is not None and len(values) == CACHE_VALUES:
                return ResolvedImage(*values)
        return None

    def is_unchanged(self) -> bool:
        """Tell whether no image was added, named or removed since the last `resolve`."""
        return self._resolved_version == self._index_version()

    def layer_sources(self, image: ResolvedImage) -> tuple[LayerSource, ...]:
        """Return the sources of an image's layers, bottom first, for `minibox.storage.drivers.Snapshotter.unpack`.

        Raises:
            StoreError: a blob is missing or the manifest damaged.
        """
        from minibox.image.layer.unpack import LayerSource
        from minibox.image.layout.manifest import layer_descriptors

        pairs = layer_descriptors(self.layout, image.digest, image.config)
        return tuple(
            LayerSource(blob_path=self.layout.blob_path(descriptor["digest"]), diff_id=diff_id, chain_id=chain_id)
            for chain_id, (descriptor, diff_id) in zip(image.chain_ids, pairs, strict=True)
        )

    def names(self) -> tuple[str, ...]:
        """Return the full names of all images in the store, sorted."""
        return self.layout.names()

    def find(self, name: ImageName) -> ResolvedImage:
        """Like `resolve`, without a look into the cache."""
        from minibox.image.builtin import base
        from minibox.image.layout.manifest import find_image

        # The version is read before the index. If the index changes in between, the cache entry never matches.
        self._resolved_version = version = self._index_version()
        reference, cache_name = name.text, self._cache_name(name.text)
        image = find_image(self.layout, name)
        if image is None and name.reference and base.is_built_in(name.reference):
            base.ensure(self.layout, name.reference)
            self._resolved_version = version = self._index_version()
            image = find_image(self.layout, name)
        if image is None:
            raise self._not_found(name)
        if version is not None and cache_name is not None:
            values = (image.reference, image.digest, image.config, image.chain_ids, image.config_digest)
            write_cache(cache_name, (CACHE_FORMAT, *version, reference), values)
        return image

    def _not_found(self, name: ImageName) -> Exception:
        from minibox.errors import ImageNotFound

        names = [parse_familiar(each) for each in self.names()]
        known = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "base, made on first use"
        hint = f"in the store: {known}"
        if name.reference:
            hint += f"; to add it: minibox pull {name.reference.familiar}"
        return ImageNotFound(f"image {name.text!r} is not in the store at {self.root}/images", hint)

    def _index_version(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._index_path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _cache_name(self, reference: str) -> str | None:
        # "/" becomes "%", which no reference contains, so different references have different names.
        if "%" in reference or "\0" in reference or len(reference) > CACHED_REFERENCE_LENGTH_MAX:
            return None
        return f"{self._cache_path}/{reference.replace('/', '%')}.marshal"


def parse_familiar(name: str) -> str:
    """Return the short form of a name in the index, or the name itself if it isn't a reference."""
    from minibox.errors import InvalidReference
    from minibox.image.reference import parse

    try:
        return parse(name).familiar
    except InvalidReference:
        return name
