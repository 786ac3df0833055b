"""``--filter KEY=VALUE`` of all commands, in Docker's syntax, and the times of ``--since`` and ``--until``."""

from __future__ import annotations

import time

from minibox.base.values import has_label, parse_duration_ns, truth
from minibox.errors import UsageError, suppress
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Collection, Iterable, Mapping


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
    import re

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
    import re

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


def lets_prune(labels: Mapping[str, str], created_s: float | None, filters: Iterable[Filter]) -> bool:
    """Tell whether `label`, `label!` and `until` let what isn't an image be removed. ``created_s``: None for now."""
    now_s = time.time()
    return all(
        (now_s if created_s is None else created_s) <= parse_time(each.value, now_s)
        if each.key == "until"
        else has_label(labels, each.value) == (each.key == "label")
        for each in filters
    )
