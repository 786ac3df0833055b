"""Addresses: each container on a bridge leases one. Leases are files:

    runroot/network/<bridge>/subnet             the bridge's subnet, chosen at first use, and its network
    runroot/network/<bridge>/leases/<address>   a symbolic link whose target is the container's id
    runroot/network/<bridge>/names/<id>         the names of a network's members; see `members`

A lease is a symbolic link because symlink(2) creates name and content in one step and fails if the name exists. So
taking an address needs no lock, and no reader sees a lease without an owner.
"""

from __future__ import annotations

import _socket
import fcntl
import os
from binascii import crc32

from minibox.base.codec import FileKind
from minibox.base.files import names_in, remove_all
from minibox.base.lock import Lock
from minibox.base.shape import path_part
from minibox.errors import NetworkError, Unreadable, suppress, trying
from minibox.network import ipv4, subnet
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from minibox.network.ipv4 import Subnet

DEFAULT_RUNROOT = "/run/minibox"
DEFAULT_BRIDGE = "minibox0"
INTERNAL = "mbi"  # prefix of the names of bridges without a way out
SIOCGIFADDR, SIOCGIFNETMASK = 0x8915, 0x891B  # netdevice(7)
LIKELY = 8  # how many of a container's first choices we look at before all others


def subnet_in_words(value: object) -> bool:
    """A shape: ``10.212.0.0/22``."""
    try:
        return isinstance(value, str) and ipv4.parse_subnet(value).prefix_length <= 30
    except ValueError:
        return False


#: ``Network``: the path of the file of the bridge's network; "" for the default one.
SUBNET = FileKind(
    "subnet",
    {"Subnet": subnet_in_words, "Network?": str},
    before=lambda data: {"Subnet": data.decode("ascii").strip()},
    indented=False,
)


@record
class Lease:
    """A container's address on a bridge. IPv4 only; fields for IPv6 can be added.

    Attributes:
        container_id: the container that holds the address.
        address: without a prefix length: ``10.212.0.7``.
        prefix_length: the bits of ``subnet``.
        gateway: the bridge's own address in ``subnet``.
        subnet: ``10.212.0.0/22``.
        bridge: the bridge's interface name.
        runroot: where the lease is stored.
    """

    container_id: str
    address: str
    prefix_length: int
    gateway: str
    subnet: str
    bridge: str
    runroot: str

    @property
    def state(self) -> str:
        """The directory of the bridge's state."""
        return directory(self.runroot, self.bridge)

    @property
    def internal(self) -> bool:
        """Whether the bridge has no way out."""
        return is_internal(self.bridge)


def is_internal(bridge: str) -> bool:
    """Tell from a bridge's name whether it has no way out."""
    return bridge.startswith(INTERNAL)


def place(runroot: str, bridge: str, chosen: Subnet, container_id: str = "", address: str = "") -> Lease:
    """Return the lease of ``address``, without taking it. Without an address it only describes the bridge."""
    gateway = ipv4.text(chosen.first + 1)
    return Lease(container_id, address, chosen.prefix_length, gateway, str(chosen), bridge, runroot)


def bridge_name(runroot: str) -> str:
    """Return ``minibox0`` for the default runroot, otherwise ``mb-`` and 8 hex digits: the CRC-32 of its path.

    So different state roots, and tests, never share a link. An interface name has at most 15 characters.
    """
    path = os.path.realpath(runroot)
    return DEFAULT_BRIDGE if path == DEFAULT_RUNROOT else f"mb-{crc32(os.fsencode(path)):08x}"


def veth_name(lease: Lease) -> str:
    """Return the name of the host's end of a container's veth pair: ``mbv`` and 12 hex digits.

    On the default bridge these are the first digits of a random id. An id that the user chose may exist in two state
    roots: then they are a CRC-32 of runroot, bridge and id. On a named network they are a CRC-32 of bridge and id (a
    container has a veth pair for each network), and 4 digits of the id, to make equal names less likely.
    """
    container_id = lease.container_id
    if not (len(container_id) >= 32 and all(c in "0123456789abcdef" for c in container_id)):
        return f"mbv{crc32(os.fsencode(f'{lease.runroot}/{lease.bridge}/{container_id}')):012x}"
    if lease.bridge == bridge_name(lease.runroot):
        return f"mbv{container_id[:12]}"
    return f"mbv{crc32(f'{lease.bridge}/{container_id}'.encode()):08x}{container_id[:4]}"


def mac(address: str) -> bytes:
    """Return a locally administered MAC address derived from the IPv4 address.

    The next container with this address gets the same MAC, so the neighbours' ARP caches stay right.
    """
    return b"\x02\x6d" + _socket.inet_aton(address)


def mac_text(address: str) -> str:
    """The same as `ip link` writes it."""
    return mac(address).hex(":")


def directory(runroot: str, bridge: str) -> str:
    """Return the directory with a bridge's state."""
    return f"{runroot}/network/{bridge}"


def take(
    runroot: str,
    container_id: str,
    bridge: str = "",
    wanted: Subnet | None = None,
    before: Callable[[Lease], None] | None = None,
) -> Lease:
    """Lease an address on ``bridge`` (by default the runroot's own) to ``container_id``.

    The container's state must exist already, so that if its owner dies, whoever cleans up finds the lease by it.

    Args:
        wanted: the bridge's subnet; None to choose a free one.
        before: called with a lease before it is taken, to write down how to give it back. If another container is
            faster, it is called again with the next.

    Raises:
        NetworkError: no subnet or no address is free, or the state can't be written.
    """
    bridge = bridge or bridge_name(runroot)
    state = directory(runroot, bridge)
    with trying(NetworkError, f"lease an address in {state}"):
        chosen = recorded(state)
        if chosen and _link_exists(bridge):
            return _take_in(chosen, runroot, container_id, bridge, before)
        os.makedirs(f"{state}/leases", 0o700, exist_ok=True)
        with Lock(state):
            chosen = _chosen(state, bridge, wanted)
            return _take_in(chosen, runroot, container_id, bridge, before)


def example(runroot: str, container_id: str, bridge: str = "", wanted: Subnet | None = None) -> Lease:
    """The lease that a container might get; nothing is taken, nor written down."""
    bridge = bridge or bridge_name(runroot)
    chosen = recorded(directory(runroot, bridge)) or wanted or _subnet_of(bridge)
    chosen = chosen or subnet.choose(subnet.host_subnets(), 0 if bridge == DEFAULT_BRIDGE else crc32(bridge.encode()))
    return place(runroot, bridge, chosen, container_id, next(_addresses(chosen, container_id)))


def release(lease: Lease) -> None:
    """Give the address back. Doing it twice is no error, even if another container has the address by then."""
    release_at(lease.state, lease.address, lease.container_id)


def release_at(state: str, address: str, container_id: str) -> None:
    """Like `release`, by the directory of the bridge's state and the address."""
    with trying(NetworkError, f"release {address} in {state}"), suppress(FileNotFoundError):
        with Lock(state):
            if owner(state, address) == container_id:
                os.unlink(f"{state}/leases/{address}")


def of(runroot: str, container_id: str) -> list[Lease]:
    """Return the leases of a container, one for each network that it is on."""
    found = []
    for bridge in bridges(runroot):
        state = directory(runroot, bridge)
        chosen = recorded(state)
        if not chosen:
            continue
        # It usually has one of the first that it tried. With hundreds of leases, reading all of them is slow.
        near = (address for address, _ in zip(_addresses(chosen, container_id), range(LIKELY)))
        for address in (*near, *names_in(f"{state}/leases")):
            if owner(state, address) == container_id:
                found.append(place(runroot, bridge, chosen, container_id, address))
                break
    return found


def bridges(runroot: str) -> list[str]:
    """Return the names of the bridges with state under ``runroot``."""
    root = f"{runroot}/network"
    return [name for name in names_in(root) if os.path.isdir(f"{root}/{name}/leases")]


def leased(state: str) -> dict[str, str]:
    """Return the addresses in use on the bridge with this state directory, each with its container's id."""
    found = {address: owner(state, address) for address in names_in(f"{state}/leases")}
    return {address: container_id for address, container_id in found.items() if container_id}


def rubbish(state: str) -> list[str]:
    """Return the names of files among a bridge's leases that are not leases."""
    return [name for name in names_in(f"{state}/leases") if not owner(state, name)]


def remove_rubbish(state: str) -> None:
    """Remove what `rubbish` returns."""
    for name in rubbish(state):
        path = f"{state}/leases/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            remove_all(path)
        elif not owner(state, name):
            os.unlink(path)


def owner(state: str, address: str) -> str:
    """Return the id of the container that holds ``address``; "" if nobody does, or the file is not a lease."""
    try:
        found = os.readlink(f"{state}/leases/{address}")
    except OSError:
        return ""
    return found if path_part(found) else ""


def _take_in(
    chosen: Subnet, runroot: str, container_id: str, bridge: str, before: Callable[[Lease], None] | None
) -> Lease:
    """Take the first free address, beginning at one that depends on the id.

    Don't begin at the lowest: an address that was just released may still be in conntrack or on its container's veth,
    which the kernel removes a little later than the namespace.
    """
    state = directory(runroot, bridge)
    for address in _addresses(chosen, container_id):
        lease, path = place(runroot, bridge, chosen, container_id, address), f"{state}/leases/{address}"
        if before:
            if os.path.lexists(path) and owner(state, address) != container_id:
                continue
            before(lease)
        try:
            os.symlink(container_id, path)
        except FileExistsError:
            if owner(state, address) != container_id:  # else a command that was killed took it for this container
                continue
        return lease
    raise NetworkError(
        f"lease an address on {bridge}: all {_count(chosen)} of {chosen} are in use",
        hint="stop containers that are no longer needed, or use another --runroot",
    )


def _addresses(chosen: Subnet, container_id: str) -> Iterator[str]:
    """Yield all addresses of a subnet that a container can have, in the order in which it tries them."""
    begin, count = crc32(container_id.encode()), _count(chosen)
    return (ipv4.text(chosen.first + 2 + (begin + i) % count) for i in range(count))


def _count(chosen: Subnet) -> int:
    """Count a subnet's addresses without the network's, the gateway's and the broadcast address."""
    return chosen.last - chosen.first - 2


def _chosen(state: str, bridge: str, wanted: Subnet | None) -> Subnet:
    """Return the bridge's subnet; a new one if we don't use the old one and the host now does. Needs the lock."""
    before = recorded(state)
    if before and (_link_exists(bridge) or leased(state)):
        return before
    chosen = wanted or _subnet_of(bridge)  # our state was deleted, and the bridge was not
    if not chosen:
        taken = subnet.host_subnets()
        if before and subnet.is_free(before, taken):
            return before
        chosen = subnet.choose(taken, 0 if bridge == DEFAULT_BRIDGE else crc32(bridge.encode()))
    record_subnet(state, chosen)
    return chosen


def record_subnet(state: str, chosen: Subnet, network: str = "") -> None:
    """Write down a bridge's subnet and its network (the path of the network's file)."""
    SUBNET.write(f"{state}/subnet", {"Subnet": str(chosen), "Network": network})


def recorded(state: str) -> Subnet | None:
    """Return the subnet of the bridge with this state directory; None if it has none yet.

    If the file is damaged, ask the bridge itself.
    """
    try:
        return ipv4.parse_subnet(SUBNET.read(f"{state}/subnet")["Subnet"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Unreadable:
        return _subnet_of(os.path.basename(state))


def network_of(state: str) -> str:
    """Return the path of the file of this bridge's network; "" if it has none or it isn't known."""
    try:
        return str(SUBNET.read(f"{state}/subnet").get("Network", ""))
    except (OSError, Unreadable):
        return ""


def _link_exists(name: str) -> bool:
    try:
        return bool(_socket.if_nametoindex(name))
    except OSError:
        return False


def _subnet_of(bridge: str) -> Subnet | None:
    """Return the subnet of an existing bridge whose address is the subnet's first; otherwise None."""
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        address, mask = (_asked(control, request, bridge) for request in (SIOCGIFADDR, SIOCGIFNETMASK))
    except OSError:  # no such link, or no address
        return None
    finally:
        control.close()
    found = ipv4.Subnet(address & mask, mask.bit_count())
    return found if address == found.first + 1 else None


def _asked(control: _socket.socket, request: int, interface: str) -> int:
    answer = fcntl.ioctl(control.fileno(), request, interface.encode().ljust(40, b"\0"))
    return int.from_bytes(answer[20:24], "big")
