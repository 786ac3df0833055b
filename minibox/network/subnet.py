"""Choose a subnet for a bridge: one that this host doesn't route anywhere yet.

The candidates avoid the defaults of other tools: Docker (172.17.0.0/12 from .17 up, then 192.168.0.0/16 by /20), Podman
(10.88.0.0/16, 10.89.0.0/16 and up), libvirt (192.168.122.0/24), LXC (10.0.3.0/24), Kubernetes' usual 10.42, 10.43,
10.96 and 10.244, Tailscale (100.64.0.0/10).
"""

from __future__ import annotations

import sys

from minibox.base.files import text_of
from minibox.base.lines import lines_of
from minibox.errors import NetworkError
from minibox.network import ipv4
from minibox.network.ipv4 import Subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# A bridge takes 1023 ports (BR_PORT_BITS in net/bridge/br_private.h): /22 is the size that fits.
PREFIX_LENGTH = 22
POOLS = ("10.212.0.0/14", "172.16.0.0/16", "192.168.224.0/19")


def candidates(offset: int) -> list[Subnet]:
    """Return all subnets that a bridge can get, best first; ``offset`` rotates the order within each pool.

    Two state roots may choose at the same moment, when neither can see the other's bridge yet. They rarely choose the
    same subnet, because each begins at its own offset.
    """
    found = []
    for pool in map(ipv4.parse_subnet, POOLS):
        size = 1 << (32 - PREFIX_LENGTH)
        count = 1 << (PREFIX_LENGTH - pool.prefix_length)
        found += [Subnet(pool.first + (offset + i) % count * size, PREFIX_LENGTH) for i in range(count)]
    return found


def choose(taken: Sequence[Subnet], offset: int) -> Subnet:
    """Return the first candidate that overlaps none of ``taken``.

    Raises:
        NetworkError: all are taken.
    """
    for candidate in candidates(offset):
        if is_free(candidate, taken):
            return candidate
    raise NetworkError(
        f"choose a subnet for the bridge: the host's routes cover all of {', '.join(POOLS)}",
        hint="use --network none or --network host, or remove a route that is wider than necessary",
    )


def is_free(subnet: Subnet, taken: Iterable[Subnet]) -> bool:
    """Tell whether ``subnet`` overlaps none of ``taken``."""
    return not any(subnet.overlaps(other) for other in taken)


def host_subnets() -> list[Subnet]:
    """Return the subnets that this thread's network namespace uses: routes of all tables, addresses, name servers."""
    found = parse_fib_trie(text_of("/proc/thread-self/net/fib_trie")) + parse_route(
        text_of("/proc/thread-self/net/route")
    )
    for line in lines_of(text_of("/etc/resolv.conf")):
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and ipv4.is_ipv4(words[1]):
            found.append(Subnet(ipv4.parse(words[1]), 32))
    return found


def parse_fib_trie(text: str) -> list[Subnet]:
    """Return the prefixes in ``/proc/net/fib_trie``. It has all tables, so it includes a VPN's policy routes.

    Leave out routes that lead everywhere: the default route, and a VPN's 0.0.0.0/1 and 128.0.0.0/1.
    """
    found = []
    for address, route in fib_leaves(text):
        prefix_length = int(route[1:].split(" ", 1)[0])
        if prefix_length > 1:
            found.append(Subnet(ipv4.parse(address), prefix_length))
    return found


def fib_leaves(fib_trie: str) -> Iterator[tuple[str, str]]:
    """Yield (address, route) from a fib_trie: ``|-- 10.8.0.0``, and from lines below it ``/24 universe UNICAST``."""
    address = ""
    for line in map(str.strip, lines_of(fib_trie)):
        if line.startswith("|-- "):
            address = line[4:]
        elif line.startswith("/"):
            yield address, line


def parse_route(text: str) -> list[Subnet]:
    """Return the prefixes in ``/proc/net/route``: the main table, with addresses and masks in host byte order."""
    found = []
    for line in lines_of(text)[1:]:
        words = line.split()
        if len(words) < 8:
            continue
        # the bytes are in network order, but printed as a native integer
        destination, mask = (int.from_bytes(int(words[i], 16).to_bytes(4, sys.byteorder), "big") for i in (1, 7))
        prefix_length = mask.bit_count()
        if prefix_length > 1:
            found.append(Subnet(destination & mask, prefix_length))
    return found
