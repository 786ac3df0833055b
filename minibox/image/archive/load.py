"""Load images from archives of ``docker save``, ``podman save``, ``skopeo copy`` and others.

There are two forms, and modern Docker writes both into one file. An OCI image layout (OCI image-spec,
image-layout.md) has an index.json. Docker's own form has a manifest.json that lists for each image the config, the
names and the layers (moby, image/spec/v1.2.md); these may be any files of the archive. If both are there we read the
layout, since it keeps digests.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from minibox.errors import InvalidReference, StoreError, trying
from minibox.image.archive.importer import LAYER_SUFFIXES
from minibox.image.archive.reader import ArchiveFiles, StagedFile
from minibox.image.layer.compression import Readable
from minibox.image.layer.unpack import LayerSource
from minibox.image.layout.layout import PULLED_DIGEST, Descriptor, Layout, annotation, ref_name
from minibox.image.layout.manifest import (
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    MEDIA_TYPE_CONFIG,
    MEDIA_TYPE_LAYER,
    MEDIA_TYPE_MANIFEST,
    NESTED_INDEXES_MAX,
    chain_ids,
    choose,
    diff_ids,
)
from minibox.image.platform import Platform, host_platform, platform_of, runs
from minibox.image.reference import is_digest, parse
from minibox.record import record

Names = tuple[str, ...]
Unpack = Callable[[Sequence[LayerSource]], None]

NAME_OF_CONTAINERD = "io.containerd.image.name"


@record
class Loaded:
    """An image that was loaded.

    Attributes:
        names: its full names; none if the archive doesn't name it.
        image_id: the digest of its config.
        digest: the digest of its manifest.
        chain_ids: the chain IDs of its layers, bottom first.
        platform: the platform that it is for.
    """

    names: tuple[str, ...]
    image_id: str
    digest: str
    chain_ids: tuple[str, ...]
    platform: Platform


@record
class _Image:
    """An image of an archive, verified as far as possible before unpacking.

    Attributes:
        manifest: the bytes of the manifest if the archive doesn't have it as a file.
        index_digest: the digest of the image index that it was chosen from, or "".
        files: the blobs of the archive to keep.
    """

    descriptor: Descriptor
    manifest: bytes
    index_digest: str
    config: dict[str, Any]
    image_id: str
    layers: tuple[Descriptor, ...]
    files: tuple[StagedFile, ...]


def load(layout: Layout, source: Readable | str, unpack: Unpack, platform: Platform | None = None) -> list[Loaded]:
    """Load the images of an archive into the store, under the names in the archive.

    Args:
        source: a file, which may be compressed and may be a pipe; or the path of a file or directory.
        unpack: called with the layers of each image, bottom first, before the image gets its names.
        platform: the platform to choose if there are several; None for this machine's.

    Raises:
        StoreError: it is not an archive of images, has none for ``platform``, is damaged, or the disk is full. No image
            got a name then.
    """
    with layout.adding(), ArchiveFiles(layout) as files:
        if not isinstance(source, str):
            files.read_tar(source)
        elif os.path.isdir(source):
            files.read_directory(source)
        else:
            with trying(StoreError, f"read {source}"):
                with open(source, "rb", buffering=0) as file:
                    files.read_tar(file)
        images = _images(files, platform or host_platform())
        if platform is not None:
            images = _of_platform(images, platform)
        files.keep(file for image, _ in images for file in image.files)
        for image, _ in images:
            if image.manifest:
                layout.write_blob(image.manifest)
            unpack(_layer_sources(layout, image))
        for image, names in images:
            _name(layout, image, names)
    return [
        Loaded(
            names, image.image_id, image.descriptor["digest"], chain_ids(diff_ids(image.config)),
            platform_of(image.config),
        )
        for image, names in images
    ]  # fmt: skip


def _images(files: ArchiveFiles, platform: Platform) -> list[tuple[_Image, Names]]:
    if "index.json" in files:
        images = _Layout(files, platform).images()
    elif "manifest.json" in files:
        images = [(_of_docker(files, item), _repo_tags(item)) for item in _docker_manifests(files)]
    else:
        raise StoreError(
            "it is not an archive of images: it has neither index.json nor manifest.json",
            "make an image of a root file system: minibox import FILE NAME",
        )
    if not images:
        raise StoreError("the archive has no images in it")
    return images


def _of_platform(images: list[tuple[_Image, Names]], platform: Platform) -> list[tuple[_Image, Names]]:
    found = [(image, names) for image, names in images if runs(platform, platform_of(image.config))]
    if not found:
        offered = dict.fromkeys(str(platform_of(image.config)) for image, _ in images)
        raise StoreError(f"the archive has no image for {platform}", f"it has {', '.join(offered)}")
    return found


def _name(layout: Layout, image: _Image, names: Names) -> None:
    descriptor = {**image.descriptor, "platform": platform_of(image.config).document()}
    if image.index_digest:
        descriptor["annotations"] = {PULLED_DIGEST: image.index_digest}
    for name in names:
        layout.set_name(name, descriptor)
    if not names:
        layout.change(lambda items: [*items, descriptor])


def _layer_sources(layout: Layout, image: _Image) -> list[LayerSource]:
    ids = diff_ids(image.config)
    return [
        LayerSource(layout.blob_path(layer["digest"]), diff_id, chain_id)
        for layer, diff_id, chain_id in zip(image.layers, ids, chain_ids(ids), strict=True)
    ]


# ---- an OCI image layout -------------------------------------------------------------------------


class _Layout:
    """The images of an OCI image layout in an archive."""

    def __init__(self, files: ArchiveFiles, platform: Platform) -> None:
        self._files = files
        self._platform = platform

    def images(self) -> list[tuple[_Image, Names]]:
        docker_names = self._docker_names()
        found: dict[str, tuple[_Image, Names]] = {}
        for descriptor in _dicts(_dict(self._files.json("index.json"), "index.json").get("manifests"), "manifests"):
            image = self._image(descriptor)
            if image is None:
                continue
            digest = image.descriptor["digest"]
            before = found[digest][1] if digest in found else ()
            names = _names(descriptor) or docker_names.get(image.image_id, ())
            found[digest] = image, tuple(dict.fromkeys(before + names))
        return list(found.values())

    def _docker_names(self) -> dict[str, Names]:
        """Return names by image id, from Docker's own manifest if there is one, too."""
        if "manifest.json" not in self._files:
            return {}
        return {
            self._files.file(item["Config"]).digest: _repo_tags(item)
            for item in _docker_manifests(self._files)
            if item["Config"] in self._files
        }

    def _image(self, descriptor: Descriptor) -> _Image | None:
        index_digest = ""
        for _ in range(NESTED_INDEXES_MAX):
            media_type, digest = descriptor.get("mediaType"), _digest(descriptor)
            if media_type in MANIFEST_TYPES:
                return self._complete(descriptor, index_digest)
            if media_type not in INDEX_TYPES:
                return None  # an artifact
            index_digest = index_digest or digest
            descriptor = choose(_dict(self._json(digest), digest), digest, self._platform)
        raise StoreError(f"image indexes are nested more than {NESTED_INDEXES_MAX} deep")

    def _complete(self, descriptor: Descriptor, index_digest: str) -> _Image | None:
        digest = _digest(descriptor)
        manifest = _dict(self._json(digest), f"manifest {digest}")
        config_descriptor = _dict(manifest.get("config"), f"the config's descriptor in manifest {digest}")
        image_id = _digest(config_descriptor)
        layers = _dicts(manifest.get("layers"), f"layers of manifest {digest}")
        if config_descriptor.get("mediaType") not in CONFIG_TYPES:
            return None  # an artifact with a manifest: a signature, a chart
        config = _dict(self._json(image_id), f"config {image_id}")
        ids = diff_ids(config)
        if len(ids) != len(layers):
            raise StoreError(
                f"manifest {digest} is damaged: {len(layers)} layers, but {len(ids)} diff IDs in its config"
            )
        blobs = [self._blob(_digest(each)) for each in (descriptor, config_descriptor, *layers)]
        plain = {"mediaType": descriptor["mediaType"], "digest": digest, "size": blobs[0].size_bytes}
        return _Image(plain, b"", index_digest, config, image_id, tuple(layers), tuple(blobs))

    def _blob(self, digest: str) -> StagedFile:
        return self._files.file(f"blobs/sha256/{digest[7:]}")

    def _json(self, digest: str) -> Any:
        return self._files.json(f"blobs/sha256/{digest[7:]}")


def _names(descriptor: Descriptor) -> Names:
    name = annotation(descriptor, NAME_OF_CONTAINERD) or ref_name(descriptor)
    # Some tools write only the tag there, which doesn't say what image it is.
    if not name or not set("/:@").intersection(name) and (name == "latest" or name.lstrip("v")[:1].isdigit()):
        return ()
    return (_full_name(name),)


# ---- Docker's own form ---------------------------------------------------------------------------


def _docker_manifests(files: ArchiveFiles) -> list[dict[str, Any]]:
    items = _dicts(files.json("manifest.json"), "manifest.json")
    for item in items:
        layers = item.get("Layers")
        if not isinstance(item.get("Config"), str) or not (
            isinstance(layers, list) and all(isinstance(layer, str) for layer in layers)
        ):
            raise StoreError("manifest.json in the archive is damaged: an image lacks Config or Layers")
    return items


def _of_docker(files: ArchiveFiles, item: dict[str, Any]) -> _Image:
    """Read an image of Docker's form, and make a manifest for it."""
    config_file = files.file(item["Config"])
    config = _dict(files.json(item["Config"]), ascii(item["Config"]))
    ids = diff_ids(config)
    blobs = [files.file(name) for name in item["Layers"]]
    if len(ids) != len(blobs):
        raise StoreError(f"manifest.json lists {len(blobs)} layers of {ascii(item['Config'])}, which has {len(ids)}")
    layers = []
    for name, blob, diff_id in zip(item["Layers"], blobs, ids):
        if blob.compression not in LAYER_SUFFIXES:
            raise StoreError(f"the layer {ascii(name)} is compressed with {blob.compression}, which OCI doesn't allow")
        if not blob.compression and blob.digest != diff_id:
            raise StoreError(f"the layer {ascii(name)} is damaged: its digest is {blob.digest}, not {diff_id}")
        media_type = MEDIA_TYPE_LAYER + LAYER_SUFFIXES[blob.compression]
        layers.append({"mediaType": media_type, "digest": blob.digest, "size": blob.size_bytes})
    manifest = {
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_MANIFEST,
        "config": {"mediaType": MEDIA_TYPE_CONFIG, "digest": config_file.digest, "size": config_file.size_bytes},
        "layers": layers,
    }
    data = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    descriptor = {"mediaType": MEDIA_TYPE_MANIFEST, "digest": digest, "size": len(data)}
    return _Image(descriptor, data, "", config, config_file.digest, tuple(layers), (config_file, *blobs))


def _repo_tags(item: dict[str, Any]) -> Names:
    tags = item.get("RepoTags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise StoreError("manifest.json in the archive is damaged: RepoTags is not a list of names")
    return tuple(dict.fromkeys(_full_name(tag) for tag in tags))


# ---- values of an archive ------------------------------------------------------------------------


def _full_name(name: str) -> str:
    try:
        reference = parse(name)
    except InvalidReference as error:
        raise StoreError(f"the archive gives an image an invalid name: {error}") from error
    return str(reference)


def _digest(descriptor: Descriptor) -> str:
    digest = descriptor.get("digest")
    if not isinstance(digest, str) or not is_digest(digest):
        raise StoreError(f"the archive is damaged: {ascii(digest)} is not a sha256 digest")
    return digest


def _dict(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise StoreError(f"the archive is damaged: {what} is not a JSON object")
    return value


def _dicts(value: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise StoreError(f"the archive is damaged: {what} is not a list of objects")
    return value
