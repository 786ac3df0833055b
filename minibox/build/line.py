"""One line of a build as the cache keeps it: its key, and what came of it."""

from __future__ import annotations

import hashlib

from minibox.base.codec import FileKind
from minibox.base.json_text import dumps
from minibox.base.shape import Between, long_id, moment
from minibox.record import record
from minibox.storage.snapshot import chain_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from minibox.build.context.context import Selection

CACHE = "cache"
"""The fact that a line came from the cache of another machine: the cache's name, and the digest of what it wrote."""
KEY_VERSION = "1"  # another one makes every line anew
KEY = {"Key": long_id, "Parent": str, "Facts": {str: str}, "Inputs": {str: str}}
LINE = FileKind(
    "build line",
    {
        **KEY,
        "Text": str,
        "MadeBy": str,
        "Made": moment,
        "Layers": [chain_id],
        "HasLayer": bool,
        "Config": dict,
        "SizeBytes": Between(0, 1 << 62),
    },
    indented=False,
)


@record
class Key:
    """What a line depends on.

    Attributes:
        id: 64 hexadecimal digits: the digest of all the rest.
        parent: the state that the line starts from: whatever the caller tells states apart by.
        facts: what it says after substitution, by name: ``{"line": "RUN make", "arg VERSION": "1.2", "shell": ...}``.
            Values of secrets don't belong here.
        inputs: the digests of what it reads, by name: ``{"src": "09af...", "mount cache": ...}``.
    """

    id: str
    parent: str
    facts: dict[str, str]
    inputs: dict[str, str]


@record
class Line:
    """A line that was carried out.

    Attributes:
        text: the line as it was written.
        made_by: the build that made it, for people: the Dockerfile with the line's number.
        made_s: when, in seconds since 1970.
        layers: the chain ids of the state after it, from the base's first layer.
        has_layer: whether the last of these is the line's own: a line that changes nothing has none.
        config: the image's config after it.
        size_bytes: the disk space of its own layer.
    """

    key: Key
    text: str
    made_by: str
    made_s: float
    layers: tuple[str, ...]
    has_layer: bool
    config: dict[str, Any]
    size_bytes: int

    @property
    def own_layer(self) -> str:
        """The chain id of its own layer; "" if it has none."""
        return self.layers[-1] if self.has_layer else ""


def key_of(parent: str, facts: Mapping[str, str], inputs: Mapping[str, str | Selection]) -> Key:
    """Return the key of a line. The order of facts and inputs doesn't count."""
    digests = {name: each if isinstance(each, str) else each.digest for name, each in sorted(inputs.items())}
    sorted_facts = dict(sorted(facts.items()))
    whole = dumps([KEY_VERSION, parent, sorted_facts, digests], "").encode(errors="surrogateescape")
    return Key(hashlib.sha256(whole).hexdigest(), parent, sorted_facts, digests)


def cache_of(key: Key) -> str:
    """Return the name of the cache that a line came from; "" if it was carried out here."""
    return key.facts.get(CACHE, "").rpartition(" ")[0]


def key_fields(key: Key) -> dict[str, Any]:
    """Return a key's fields for a file."""
    return {"Key": key.id, "Parent": key.parent, "Facts": key.facts, "Inputs": key.inputs}


def key_from(fields: dict[str, Any]) -> Key:
    """Return the key that `key_fields` was given."""
    return Key(fields["Key"], fields["Parent"], fields["Facts"], fields["Inputs"])


def line_fields(line: Line) -> dict[str, Any]:
    """Return a line's fields for its file."""
    return {
        **key_fields(line.key),
        "Text": line.text,
        "MadeBy": line.made_by,
        "Made": line.made_s,
        "Layers": list(line.layers),
        "HasLayer": line.has_layer,
        "Config": line.config,
        "SizeBytes": line.size_bytes,
    }


def line_from(fields: dict[str, Any]) -> Line:
    """Return the line that `line_fields` was given."""
    return Line(
        key_from(fields), fields["Text"], fields["MadeBy"], fields["Made"], tuple(fields["Layers"]),
        fields["HasLayer"], fields["Config"], fields["SizeBytes"],
    )  # fmt: skip
