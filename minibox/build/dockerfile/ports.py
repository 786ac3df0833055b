"""Ports of EXPOSE: ``80``, ``53/udp``, ``8000-8010/tcp``; an address and a port of the host are read and dropped."""

from __future__ import annotations

from minibox.build.dockerfile.lines import Problem
from minibox.build.dockerfile.numbers import number_of

PROTOCOLS = ("tcp", "udp", "sctp")
_END = 1 << 16


def exposed_ports(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return each port with its protocol, as an image's config has them: ``80/tcp``.

    Raises:
        Problem: a word is no port, or a protocol is unknown.
    """
    return tuple(port for word in words for port in _ports(word))


def has_host_part(word: str) -> bool:
    """Tell whether a word has an address or a port of the host, which EXPOSE has no use for."""
    return ":" in word


def protocol(word: str) -> str:
    """The protocol as written; "" without one."""
    return word.rpartition(":")[2].partition("/")[2]


def _ports(word: str) -> list[str]:
    numbers = word.rpartition(":")[2].partition("/")[0]
    name = protocol(word).lower() or "tcp"
    if name not in PROTOCOLS:
        raise Problem(f"unknown protocol {name!r} in EXPOSE {word}", f"there are {', '.join(PROTOCOLS)}", at=word)
    first, dash, last = numbers.partition("-")
    begin, end = number_of(first, _END), number_of(last if dash else first, _END)
    if begin is None or end is None or begin > end:
        raise Problem(f"invalid port {word!r} in EXPOSE", "write a port such as 80, 53/udp or 8000-8010", at=word)
    return [f"{number}/{name}" for number in range(begin, end + 1)]
