"""The format of a cache on another machine: an OCI artifact, which every registry keeps. docs/build.md describes it.

The artifact's config lists the lines, and its layers are what they have written, as plain tars: so a layer's digest is
its diff ID, too. Nothing that is read is trusted: what doesn't fit refuses the whole cache.
"""

from __future__ import annotations

from minibox.base.codec import BROKEN, plain
from minibox.base.shape import Between, check, long_id, moment
from minibox.errors import BuildError, RegistryError
from minibox.image.layout.manifest import CONFIG_TYPES, MEDIA_TYPE_LAYER, MEDIA_TYPE_MANIFEST
from minibox.image.reference import is_digest
from minibox.image.registry.validation import LAYERS_MAX
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minibox.image.layout.layout import Descriptor
    from minibox.image.registry.validation import Document

ARTIFACT_TYPE = "application/vnd.minibox.build-cache.v1"
MEDIA_TYPE = "application/vnd.minibox.build-cache.v1+json"
BUILDKIT = "application/vnd.buildkit.cacheconfig.v0"
MADE_BY_LENGTH_MAX = 300


def short_text(value: object) -> bool:
    return type(value) is str and len(value) <= MADE_BY_LENGTH_MAX and value.isprintable()


LINES = {
    "version": Between(1, 1),
    "lines": [
        {
            "key": long_id,
            "parent": is_digest,
            "made": moment,
            "madeBy": short_text,
            "layer?": Between(0, LAYERS_MAX - 1),
        }
    ],
}


@record
class CachedLine:
    """A line in the cache of another machine.

    Attributes:
        key: `minibox.build.line.Key.id`, as every machine computes it: see `states.States`.
        parent: the chain ID of the layers that it was made on.
        made_by: the Dockerfile with the line's number, for people.
        made_s: when, in seconds since 1970.
        layer: what it has written; None if nothing.
    """

    key: str
    parent: str
    made_by: str
    made_s: float
    layer: Descriptor | None


def config_of(lines: Iterable[CachedLine]) -> tuple[dict[str, Any], list[Descriptor]]:
    """Return the artifact's config and its layers. The same lines give the same, in whatever order they come."""
    layers: dict[str, Descriptor] = {}
    listed = []
    for line in sorted({each.key: each for each in lines}.values(), key=lambda each: each.key):
        found = {"key": line.key, "parent": line.parent, "made": line.made_s, "madeBy": _printable(line.made_by)}
        if line.layer:
            layers.setdefault(line.layer["digest"], line.layer)
            found["layer"] = list(layers).index(line.layer["digest"])
        listed.append(found)
    return {"version": 1, "lines": listed}, list(layers.values())


def manifest_of(config: Descriptor, layers: list[Descriptor]) -> dict[str, Any]:
    """Return the artifact's manifest."""
    return {
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": config,
        "layers": layers,
    }


def check_manifest(document: Document, name: str) -> None:
    """Check that a manifest is that of a cache.

    Raises:
        BuildError: it is BuildKit's.
        RegistryError: it is something else.
    """
    listed = document.value["manifests"] if document.is_index else [document.value["config"]]
    types = [each["mediaType"] for each in listed]
    if BUILDKIT in types:
        raise BuildError(
            f"--cache-from {name}: it is a cache of BuildKit, which minibox can't read",
            "write one with minibox build --cache-to, under another tag",
        )
    if document.is_index or types[0] in CONFIG_TYPES:
        raise RegistryError("it is an image, not a build cache", "minibox build --cache-to writes one")
    if types[0] != MEDIA_TYPE:
        raise RegistryError(f"it is not a build cache of this minibox: its config is {ascii(types[0])}")
    for layer in document.value["layers"]:
        if layer["mediaType"] != MEDIA_TYPE_LAYER:
            raise RegistryError(f"its layer {layer['digest']} is {ascii(layer['mediaType'])}, not {MEDIA_TYPE_LAYER}")


def read_lines(data: bytes, layers: list[Descriptor]) -> dict[str, CachedLine]:
    """Return the lines in an artifact's config, by their keys.

    Raises:
        RegistryError: it is damaged.
    """
    found: dict[str, CachedLine] = {}
    try:
        fields = plain(data)
        check(fields, LINES)
        for each in fields["lines"]:
            layer = layers[each["layer"]] if "layer" in each else None
            if each["key"] in found:
                raise ValueError(f"it has the line {each['key']} twice")
            found[each["key"]] = CachedLine(each["key"], each["parent"], each["madeBy"], each["made"], layer)
    except BROKEN as error:
        raise RegistryError(f"its config is damaged: {str(error) or type(error).__name__}") from None
    return found


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)[:MADE_BY_LENGTH_MAX]
