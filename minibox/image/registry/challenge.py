"""Parse the WWW-Authenticate header, which says what login a registry wants (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from minibox.record import record

# A word, and after "=" its value, with or without quotes. Registries leave them out even for URLs.
_ITEM = re.compile(r'[\s,]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?', re.ASCII)
_QUOTED_PAIR = re.compile(r"\\(.)")


@record
class Challenge:
    """One challenge.

    Attributes:
        scheme: in lower case: ``basic``, ``bearer``.
        parameters: by name in lower case: ``realm``, ``service``, ``scope``.
    """

    scheme: str
    parameters: dict[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Return the challenges in all WWW-Authenticate headers of a response. Unreadable parts are left out."""
    found: list[Challenge] = []
    for header in headers:
        position = 0
        while match := _ITEM.match(header, position):
            position = match.end()
            word, quoted, plain = match.groups()
            value = _QUOTED_PAIR.sub(r"\1", quoted) if quoted is not None else plain
            if value is None:
                found.append(Challenge(word.lower(), {}))
            elif found:
                found[-1].parameters.setdefault(word.lower(), value)
    return found
