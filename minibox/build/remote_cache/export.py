"""Write the lines of a build where builds on other machines find them: ``--cache-to``."""

from __future__ import annotations

import os
from hashlib import file_digest
from shutil import copyfile

from minibox.base.files import discard, open_to_read, replace_file, temporary_path
from minibox.base.json_text import dumps
from minibox.build.image.make import condemn
from minibox.build.remote_cache.document import MEDIA_TYPE as MEDIA_TYPE_CACHE
from minibox.build.remote_cache.document import CachedLine, config_of, manifest_of
from minibox.build.remote_cache.words import MAX
from minibox.engine.resources.registry import push_artifact
from minibox.errors import BuildError, MiniboxError, kernel_says
from minibox.image.layout.layout import LAYOUT_FILE, MEDIA_TYPE_INDEX
from minibox.image.layout.manifest import MEDIA_TYPE_LAYER, MEDIA_TYPE_MANIFEST
from minibox.image.reference import parse as parse_reference
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minibox.build.line import Key, Line
    from minibox.build.remote_cache.states import States
    from minibox.build.remote_cache.words import CachePlace
    from minibox.image.layout.layout import Descriptor, Layout


@record
class BuiltLine:
    """A line of this build, made or reused.

    Attributes:
        key: as every machine computes it.
        below, layers: what it started from: the layers of the base image, and those of lines.
        is_in_image: the image has its stage.
    """

    key: Key
    line: Line
    below: tuple[str, ...]
    layers: tuple[str, ...]
    is_in_image: bool


@record
class Exported:
    """A line to export. ``is_in_image`` is that of `BuiltLine`."""

    line: CachedLine
    is_in_image: bool


def pack_lines(states: States, lines: Sequence[BuiltLine], *, every: bool) -> list[Exported]:
    """Pack what lines have written, as far as it isn't packed yet. Call it inside `Layout.adding`.

    Args:
        every: those of all stages, not only the image's.

    Raises:
        MiniboxError: the disk is full, or a file can't be read.
    """
    found = []
    for each in lines:
        if not (every or each.is_in_image):
            continue
        line, layer = each.line, None
        parent = states.content(each.below, each.layers)
        if line.has_layer:
            digest, size = states.pack((*each.below, *each.layers, line.own_layer))
            layer = {"mediaType": MEDIA_TYPE_LAYER, "digest": digest, "size": size}
        made_by = line.made_by.rpartition("/")[2]  # where the Dockerfile lies is nobody's business
        cached = CachedLine(each.key.id, parent, made_by, line.made_s, layer)
        found.append(Exported(cached, each.is_in_image))
    return found


def export(
    layout: Layout, places: Sequence[CachePlace], lines: Sequence[Exported], notice: Callable[[str], None]
) -> None:
    """Write the lines to all ``places``. Call it inside `Layout.adding`.

    Raises:
        BuildError: one can't be written, and doesn't ignore errors.
    """
    for place in places:
        chosen = [each.line for each in lines if each.is_in_image or place.mode == MAX]
        try:
            config, layers = config_of(chosen)
            described = layout.write_json(config, MEDIA_TYPE_CACHE)
            descriptor = layout.write_json(manifest_of(described, layers), MEDIA_TYPE_MANIFEST)
            try:
                if place.type == "local":
                    _write_directory(layout, place.name, descriptor, [described, *layers])
                else:
                    push_artifact(layout, parse_reference(place.name), descriptor, environ=os.environ)
            finally:
                condemn(layout, described["digest"])
                condemn(layout, descriptor["digest"])
        except MiniboxError as error:
            if not place.ignores_errors:
                raise BuildError(f"write the cache {place.name}: {error}", error.hint) from error
            notice(f"the cache {place.name} isn't written: {error}")


def _write_directory(layout: Layout, path: str, manifest: Descriptor, blobs: Sequence[Descriptor]) -> None:
    """Write an OCI image layout with one manifest. It names the new one once all blobs are there."""
    index = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": [manifest]}
    try:
        os.makedirs(f"{path}/blobs/sha256", exist_ok=True)
        for each in (*blobs, manifest):
            _copy_blob(layout, each, f"{path}/blobs/sha256")
        replace_file(f"{path}/oci-layout", LAYOUT_FILE, mode=0o644)
        replace_file(f"{path}/index.json", dumps(index, "").encode(), mode=0o644)
    except OSError as error:
        raise BuildError(f"write {error.filename or path}: {kernel_says(error)}") from error


def _copy_blob(layout: Layout, blob: Descriptor, directory: str) -> None:
    """Copy a blob of the store, unless it is there and sound. It has its name once it is complete."""
    name = blob["digest"][7:]
    if _is_sound(f"{directory}/{name}", blob["digest"]):
        return
    new = temporary_path(directory, name)
    try:
        copyfile(layout.blob_path(blob["digest"]), new)
        os.replace(new, f"{directory}/{name}")
    except BaseException:
        discard(new)
        raise


def _is_sound(path: str, digest: str) -> bool:
    try:
        with open(open_to_read(path), "rb") as file:
            return f"sha256:{file_digest(file, 'sha256').hexdigest()}" == digest
    except FileNotFoundError:
        return False
