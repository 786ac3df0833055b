"""IPv4 addresses as integers, and their subnets, without importing `ipaddress` (3 ms)."""

from __future__ import annotations

import _socket

from minibox.record import record


def parse(text: str) -> int:
    """Return a dotted quad as an integer; ValueError for anything else."""
    try:
        return int.from_bytes(_socket.inet_pton(_socket.AF_INET, text), "big")
    except OSError:
        raise ValueError(f"not an IPv4 address: {text}") from None


def is_ipv4(text: str) -> bool:
    """Tell whether ``text`` is a dotted quad."""
    return _is(_socket.AF_INET, text)


def is_ipv6(text: str) -> bool:
    """Tell whether ``text`` is an IPv6 address without a zone."""
    return _is(_socket.AF_INET6, text)


def _is(family: int, text: str) -> bool:
    try:
        return bool(_socket.inet_pton(family, text))
    except (OSError, ValueError):
        return False


def text(address: int) -> str:
    """Return an integer as a dotted quad."""
    return _socket.inet_ntop(_socket.AF_INET, address.to_bytes(4, "big"))


@record
class Subnet:
    """A subnet. ``first`` is its network address, as an integer."""

    first: int
    prefix_length: int

    @property
    def last(self) -> int:
        """The broadcast address."""
        return self.first | (0xFFFFFFFF >> self.prefix_length)

    def overlaps(self, other: Subnet) -> bool:
        """Tell whether some address is in both."""
        return self.first <= other.last and other.first <= self.last

    def __contains__(self, address: int) -> bool:
        return self.first <= address <= self.last

    def __str__(self) -> str:
        return f"{text(self.first)}/{self.prefix_length}"


def parse_subnet(cidr: str) -> Subnet:
    """Parse ``10.212.0.0/22``; host bits are dropped. ValueError for anything else."""
    address, slash, length = cidr.partition("/")
    prefix_length = int(length) if slash else 32
    if not 0 <= prefix_length <= 32:
        raise ValueError(f"not a prefix length: {cidr}")
    mask = (0xFFFFFFFF << (32 - prefix_length)) & 0xFFFFFFFF
    return Subnet(parse(address) & mask, prefix_length)
