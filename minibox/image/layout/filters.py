"""`--filter KEY=VALUE` of commands on images, with Docker's keys.

Source: https://docs.docker.com/reference/cli/docker/image/ls/#filter. If several filters have the key ``reference``,
one must match; of all others, each must match.
"""

from __future__ import annotations

import re
import time

from minibox.base.values import has_label, parse_duration_ns, truth
from minibox.errors import UsageError, suppress
from minibox.image.layout.inventory import NONE, find
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from minibox.image.layout.inventory import Name, StoredImage

LIST_KEYS = ("before", "dangling", "label", "reference", "since", "until")
PRUNE_KEYS = ("dangling", "label", "label!", "until")


@record
class Filter:
    key: str
    value: str


def parse_filters(words: Iterable[str], keys: Collection[str]) -> list[Filter]:
    """Parse the filters of a command that allows ``keys``.

    Raises:
        UsageError: one isn't KEY=VALUE, or its key or value is invalid.
    """
    filters = []
    for word in words:
        key, equals, value = word.partition("=")
        key = key.strip().lower()
        if key == "label" and value.startswith("!") and "label!" in keys:
            key, value = "label!", value[1:]  # accepted, since "label!=" is awkward to type in a shell
        if not equals or key not in keys:
            why = "it is not KEY=VALUE" if not equals else f"there is no filter {key!r}"
            raise UsageError(f"invalid filter {word!r}: {why}", f"one of {', '.join(f'{each}=' for each in keys)}")
        if key == "dangling":
            parse_truth(value)
        if key == "until":
            parse_time(value, time.time())
        if key == "reference":
            glob(value)
        filters.append(Filter(key, value.strip()))
    return filters


def parse_truth(text: str, key: str = "dangling") -> bool:
    """Parse a boolean, like Go's strconv.ParseBool.

    Raises:
        UsageError: it is neither true nor false.
    """
    try:
        return truth(text.strip().lower())
    except ValueError:
        raise UsageError(f"invalid filter '{key}={text}'", "write true or false") from None


def parse_time(text: str, now_s: float) -> float:
    """Parse a time for `until` to seconds since 1970: how long ago (``10m``, ``1h30m``), such seconds, or a date.

    Raises:
        UsageError: it is none of these.
    """
    import datetime

    text = text.strip()
    if re.fullmatch(r"[0-9]{1,11}(\.[0-9]{0,9})?", text):
        return float(text)
    with suppress(ValueError):  # a date
        return now_s - parse_duration_ns(text) / 1e9
    try:
        return datetime.datetime.fromisoformat(text).timestamp()  # without a zone, it is local time
    except (ValueError, OverflowError):
        raise UsageError(
            f"invalid time {text!r}", "write how long ago (24h, 1h30m), a date (2024-05-01T12:00:00), or seconds"
        ) from None


def glob(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of Go's path.Match, where ``*`` and ``?`` don't match a slash.

    Raises:
        UsageError: a ``[`` isn't closed.
    """
    out = ""
    rest = pattern
    while rest:
        if match := re.match(r"\[(\^?)((?:[^\]\\]|\\.)+)\]", rest, re.DOTALL):
            members = re.sub(r"([\[&|~])", r"\\\1", match[2])
            out += f"[{match[1]}{members}]"
            rest = rest[match.end() :]
            continue
        character, rest = rest[0], rest[1:]
        if character == "\\" and rest:
            character, rest = rest[0], rest[1:]
        elif character in "*?":
            out += "[^/]*" if character == "*" else "[^/]"
            continue
        elif character in "[\\":
            raise UsageError(f"invalid pattern {pattern!r}: {character} is not closed")
        out += re.escape(character)
    try:
        return re.compile(out)
    except re.error as error:
        raise UsageError(f"invalid pattern {pattern!r}: {error}") from None


def created_s(image: StoredImage) -> float:
    """Return when an image was made, in seconds since 1970; 0 if unknown."""
    return moment(image.created)


def dated_s(image: StoredImage) -> float:
    """Return the date that filters use for an image.

    It is when the image was made; or when it came into the store, if that is unknown or 1970 or before, as reproducible
    builds set it.
    """
    made_s = created_s(image)
    return made_s if made_s > 0 else image.stored_s


def moment(text: object) -> float:
    """Parse a time of RFC 3339 to seconds since 1970; 0 if it is invalid."""
    import datetime

    try:
        found = datetime.datetime.fromisoformat(text if isinstance(text, str) else "")
        return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def select(images: Sequence[StoredImage], filters: Sequence[Filter]) -> list[tuple[StoredImage, tuple[Name, ...]]]:
    """Return the images that match, each with those of its names that match.

    Raises:
        ImageNotFound: the image of a filter ``before`` or ``since`` doesn't exist.
    """
    now_s = time.time()
    patterns = [glob(each.value) for each in filters if each.key == "reference"]
    chosen = []
    for image in images:
        names = tuple(name for name in image.names if not patterns or any(_fits(name, each) for each in patterns))
        if (names or not patterns) and all(_passes(image, each, images, now_s) for each in filters):
            chosen.append((image, names))
    return chosen


def lets_prune(labels: Mapping[str, str], created_s: float | None, filters: Iterable[Filter]) -> bool:
    """Tell whether `label`, `label!` and `until` let what isn't an image be removed. ``created_s``: None for now."""
    now_s = time.time()
    return all(
        (now_s if created_s is None else created_s) <= parse_time(each.value, now_s)
        if each.key == "until"
        else has_label(labels, each.value) == (each.key == "label")
        for each in filters
    )


def _fits(name: Name, pattern: re.Pattern[str]) -> bool:
    return any(pattern.fullmatch(text) for text in (name.familiar, name.repository) if text != NONE)


def _passes(image: StoredImage, wanted: Filter, images: Sequence[StoredImage], now_s: float) -> bool:
    key, value = wanted.key, wanted.value
    if key == "dangling":
        return parse_truth(value) == (not image.names)
    if key in ("label", "label!"):
        return has_label(image.labels, value) == (key == "label")
    if key == "until":
        return dated_s(image) <= parse_time(value, now_s)
    if key in ("before", "since"):
        other = find(images, value)[0]
        return dated_s(image) < dated_s(other) if key == "before" else dated_s(image) > dated_s(other)
    return True
