"""The links and addresses of network namespaces: of the caller's by netlink, of a process's from its /proc and sysfs.

To ask by netlink means to enter the namespace, and an ordinary user would have to become root of another one first.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv6Address

from minibox.base.files import closing
from minibox.errors import NetworkError, suppress, trying
from minibox.linux.files import open_in_root, read_in_root
from minibox.record import record

BYTES_MAX = 4 << 20
CLASS = "sys/class/net"
ARPHRD_LOOPBACK = 772  # linux/if_arp.h


@record
class Link:
    """A network interface.

    Attributes:
        index: its number in its namespace.
        peer: the index of the other end of a veth, in the namespace of that; 0 if there is none.
        kind: bridge, loopback, veth, or "" for another.
        master: the bridge that it is a port of; "" for none.
        state: of its operation: up, down, unknown.
        addresses: with prefix lengths.
    """

    name: str
    index: int
    peer: int
    kind: str
    master: str
    state: str
    addresses: tuple[str, ...]


def own_links() -> list[Link]:
    """Return the links of the caller's network namespace.

    Raises:
        NetworkError: the kernel refused.
    """
    from pyroute2 import IPRoute

    with trying(NetworkError, "list the links of this host"), IPRoute() as route:
        links, addresses = list(route.get_links()), list(route.get_addr())
    names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
    found = []
    for link in links:
        details = link.get_attr("IFLA_LINKINFO")
        kind = (
            "loopback" if link["ifi_type"] == ARPHRD_LOOPBACK else details.get_attr("IFLA_INFO_KIND") if details else ""
        )
        own = tuple(
            f"{each.get_attr('IFA_LOCAL') or each.get_attr('IFA_ADDRESS')}/{each['prefixlen']}"
            for each in addresses
            if each["index"] == link["index"]
        )
        peer, master = link.get_attr("IFLA_LINK") or 0, names.get(link.get_attr("IFLA_MASTER"), "")
        state = str(link.get_attr("IFLA_OPERSTATE") or "").lower()
        found.append(Link(names[link["index"]], link["index"], peer, kind or "", master, state, own))
    return found


def links_of(pid: int) -> list[Link]:
    """Return the links of a process's network namespace, as its own sysfs shows them; none if it has no sysfs.

    Raises:
        OSError: the process has ended.
    """
    with closing(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root_fd:
        try:
            with closing(open_in_root(root_fd, CLASS, os.O_RDONLY | os.O_DIRECTORY)) as fd:
                names = sorted(os.listdir(fd))
        except OSError:
            return []
        addresses = _addresses(f"/proc/{pid}/net")
        found = [_link(root_fd, name, tuple(addresses.get(name, ()))) for name in names]
    return sorted((each for each in found if each), key=lambda each: each.index)


def _link(root_fd: int, name: str, addresses: tuple[str, ...]) -> Link | None:
    base = f"{CLASS}/{name}"
    index, peer = _number(root_fd, f"{base}/ifindex"), _number(root_fd, f"{base}/iflink")
    if not index:
        return None  # not an interface, such as bonding_masters, or gone since
    kind = "loopback" if _number(root_fd, f"{base}/type") == ARPHRD_LOOPBACK else "veth" if peer != index else ""
    with suppress(OSError):
        os.close(open_in_root(root_fd, f"{base}/bridge", os.O_PATH | os.O_DIRECTORY))
        kind = "bridge"
    master = ""
    with suppress(OSError):
        with closing(open_in_root(root_fd, base, os.O_PATH | os.O_DIRECTORY)) as fd:
            master = os.path.basename(os.readlink("master", dir_fd=fd))
    state = _text(root_fd, f"{base}/operstate")
    return Link(name, index, peer if peer != index else 0, kind, master, state, addresses)


def _addresses(directory: str) -> dict[str, list[str]]:
    """Return the addresses of each link; proc_pid_net(5)."""
    found: dict[str, list[str]] = {}
    routes = _routes(f"{directory}/route")
    address = ""
    for line in _lines(f"{directory}/fib_trie"):
        words = line.split()
        if words[:1] == ["|--"] and len(words) == 2:
            address = words[1]
        elif words[:3] == ["/32", "host", "LOCAL"] and address:
            name, prefix = _link_of(int(IPv4Address(address)), routes)
            text = f"{address}/{prefix}"
            if name and text not in found.setdefault(name, []):
                found[name].append(text)
    for line in _lines(f"{directory}/if_inet6"):
        words = line.split()
        if len(words) == 6:
            found.setdefault(words[5], []).append(f"{IPv6Address(int(words[0], 16))}/{int(words[2], 16)}")
    return found


def _routes(path: str) -> list[tuple[str, int, int]]:
    """Return name, network and mask of the routes to what is on a link, the narrowest first."""
    found = []
    for line in _lines(path)[1:]:
        words = line.split()
        if len(words) > 7 and int(words[2], 16) == 0:
            network, mask = (int.from_bytes(bytes.fromhex(words[at]), "little") for at in (1, 7))
            if mask:
                found.append((words[0], network, mask))
    return sorted(found, key=lambda each: -each[2])


def _link_of(address: int, routes: list[tuple[str, int, int]]) -> tuple[str, int]:
    if address >> 24 == 127:
        return "lo", 8
    return next(
        ((name, mask.bit_count()) for name, network, mask in routes if address & mask == network),
        ("", 32),
    )


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(BYTES_MAX).split("\n")
    except OSError:
        return []


def _text(root_fd: int, path: str) -> str:
    try:
        return read_in_root(root_fd, path, 1 << 12).decode(errors="replace").strip()
    except OSError:
        return ""


def _number(root_fd: int, path: str) -> int:
    text = _text(root_fd, path)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else 0
