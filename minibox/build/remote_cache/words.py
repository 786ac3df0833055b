"""The values of ``--cache-from`` and ``--cache-to``."""

from __future__ import annotations

import os

from minibox.errors import InvalidReference, UsageError
from minibox.image.reference import parse as parse_reference
from minibox.record import record

FROM, TO = "--cache-from", "--cache-to"
MIN, MAX = "min", "max"
REFUSED = {
    "azblob": "type=registry or type=local",
    "gha": "type=registry or type=local",
    "inline": "--cache-to type=registry,ref=NAME keeps it beside the image",
    "s3": "type=registry or type=local",
}
FIELDS = {
    ("registry", FROM): ("ref",),
    ("registry", TO): ("ref", "mode", "ignore-error"),
    ("local", FROM): ("src",),
    ("local", TO): ("dest", "mode", "ignore-error"),
}


@record
class CachePlace:
    """One value of ``--cache-from`` or ``--cache-to``.

    Attributes:
        type: ``registry`` or ``local``.
        name: the full reference, or the absolute path of the directory.
        mode: ``min`` for the lines of the image, ``max`` for those of all stages that were built.
        ignores_errors: a build goes on if it can't be written.
    """

    type: str
    name: str
    mode: str = MIN
    ignores_errors: bool = False


def parse_places(text: str, option: str) -> tuple[CachePlace, ...]:
    """Parse one value of ``option``: ``type=registry,ref=NAME,...``, ``type=local,src=DIR``, or ``NAME,...``.

    Raises:
        UsageError: it is malformed, or asks for something that minibox doesn't have.
    """
    words = text.split(",")
    if not any("=" in word for word in words):
        return tuple(CachePlace("registry", _reference(word, text, option)) for word in words)
    fields = dict(word.partition("=")[::2] for word in words)
    kind = fields.pop("type", "")
    if kind in REFUSED:
        raise UsageError(f"{option} {text}: type {kind} is not supported", REFUSED[kind])
    if not kind:
        raise UsageError(f"{option} {text}: it needs type=", "type=registry or type=local")
    if (kind, option) not in FIELDS:
        raise UsageError(f"{option} {text}: unknown type {kind!r}", "registry or local")
    allowed = FIELDS[kind, option]
    for name in fields:
        if name not in allowed:
            raise UsageError(f"{option} {text}: type {kind} has no option {name!r}", f"it has {', '.join(allowed)}")
    where = fields.get(allowed[0], "")
    if not where:
        raise UsageError(f"{option} {text}: it needs {allowed[0]}=")
    mode, ignores = fields.get("mode", MIN), fields.get("ignore-error", "false")
    if mode not in (MIN, MAX):
        raise UsageError(f"{option} {text}: unknown mode {mode!r}", "min: the image's lines; max: those of all stages")
    if ignores not in ("true", "false"):
        raise UsageError(f"{option} {text}: ignore-error is true or false")
    name = _reference(where, text, option) if kind == "registry" else os.path.abspath(where)
    return (CachePlace(kind, name, mode, ignores == "true"),)


def _reference(name: str, text: str, option: str) -> str:
    try:
        reference = parse_reference(name)
    except InvalidReference as error:
        raise UsageError(f"{option} {text}: {error}", error.hint) from error
    if option == TO and reference.digest:
        raise UsageError(f"{option} {text}: a cache is written to a tag, not to a digest", reference.name + ":TAG")
    return str(reference)
