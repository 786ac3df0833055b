"""Addresses: one leased to each container on a bridge, by files only.

    runroot/network/<bridge>/subnet             the bridge's subnet, chosen at first use, and its network
    runroot/network/<bridge>/leases/<address>   a symbolic link whose target is the container's id
    runroot/network/<bridge>/names/<id>         what members of a network are called; see `members`

A symbolic link because symlink(2) makes name and content in one step and refuses a name that is
there: taking an address needs no lock, and no reader sees a lease without an owner.
"""

from __future__ import annotations

import _socket
import fcntl
import os
from binascii import crc32

from minibox.base.codec import FileKind
from minibox.base.files import remove_all
from minibox.base.lock import Lock
from minibox.base.shape import path_part
from minibox.errors import NetworkError, Unreadable, kernel_says
from minibox.network import ipv4, subnet
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.network.ipv4 import Subnet

DEFAULT_RUNROOT = "/run/minibox"
DEFAULT_BRIDGE = "minibox0"
INTERNAL = "mbi"  # how the names of bridges begin that have no way out
SIOCGIFADDR, SIOCGIFNETMASK = 0x8915, 0x891B  # netdevice(7)
LIKELY = 8  # so many of the addresses that a container tries first are looked at first


def subnet_in_words(value: object) -> bool:
    """A shape: ``10.212.0.0/22``."""
    try:
        return isinstance(value, str) and ipv4.parse_subnet(value).prefix_length <= 30
    except ValueError:
        return False


#: ``Network``: the path of the file of the network whose bridge it is; "" for the default one.
SUBNET = FileKind(
    "subnet",
    {"Subnet": subnet_in_words, "Network?": str},
    before=lambda data: {"Subnet": data.decode("ascii").strip()},
    indented=False,
)


@record
class Lease:
    """A container's place on a bridge. IPv4 today; IPv6 fields will come beside these.

    Attributes:
        container_id: who holds the address.
        address: the container's, without a prefix length: ``10.212.0.7``.
        prefix_length: bits of ``subnet``.
        gateway: the bridge's own address in ``subnet``.
        subnet: ``10.212.0.0/22``.
        bridge: the bridge's interface name.
        runroot: where the lease is remembered.
    """

    container_id: str
    address: str
    prefix_length: int
    gateway: str
    subnet: str
    bridge: str
    runroot: str

    @property
    def internal(self) -> bool:
        """Whether its bridge has no way out."""
        return is_internal(self.bridge)


def is_internal(bridge: str) -> bool:
    """Whether a bridge has no way out: its name says so."""
    return bridge.startswith(INTERNAL)


def place(runroot: str, bridge: str, chosen: Subnet, container_id: str = "", address: str = "") -> Lease:
    """The lease of ``address``; without one that of nobody, which says all of the bridge."""
    gateway = ipv4.text(chosen.first + 1)
    return Lease(container_id, address, chosen.prefix_length, gateway, str(chosen), bridge, runroot)


def bridge_name(runroot: str) -> str:
    """``minibox0`` for the default runroot, else ``mb-`` and 8 hex digits of the path's CRC-32.

    So that several state roots, and tests, never share a link. Interface names have 15 characters.
    """
    path = os.path.realpath(runroot)
    return DEFAULT_BRIDGE if path == DEFAULT_RUNROOT else f"mb-{crc32(os.fsencode(path)):08x}"


def directory(runroot: str, bridge: str) -> str:
    """Where a bridge's state is kept."""
    return f"{runroot}/network/{bridge}"


def take(runroot: str, container_id: str, bridge: str = "", wanted: Subnet | None = None) -> Lease:
    """Lease an address on ``bridge`` (default: the runroot's own) to ``container_id``.

    The container's state must be there already: who finds it without an owner frees what it had, `release_of`.

    Args:
        wanted: the bridge's subnet; None for one that is chosen.

    Raises:
        NetworkError: no subnet or no address is free, or the state can't be written.
    """
    bridge = bridge or bridge_name(runroot)
    state = directory(runroot, bridge)
    try:
        chosen = recorded(state)
        if chosen and _link_exists(bridge):
            return _take_in(chosen, runroot, container_id, bridge)
        os.makedirs(f"{state}/leases", 0o700, exist_ok=True)
        with Lock(state):
            chosen = _chosen(state, bridge, wanted)
            return _take_in(chosen, runroot, container_id, bridge)
    except OSError as error:
        raise NetworkError(f"lease an address in {state}: {kernel_says(error)}") from error


def release(lease: Lease) -> None:
    """Give the address back. Doing it twice is no error, and a successor's lease is left alone."""
    state = directory(lease.runroot, lease.bridge)
    try:
        with Lock(state):
            if owner(state, lease.address) == lease.container_id:
                os.unlink(f"{state}/leases/{lease.address}")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise NetworkError(f"release {lease.address} in {state}: {kernel_says(error)}") from error


def of(runroot: str, container_id: str) -> list[Lease]:
    """The leases of a container, one for each network that it is on."""
    found = []
    for bridge in bridges(runroot):
        state = directory(runroot, bridge)
        chosen = recorded(state)
        if not chosen:
            continue
        # It has one of the first that it has tried, as a rule: with hundreds of them a look at all takes its time.
        near = (address for address, _ in zip(_addresses(chosen, container_id), range(LIKELY)))
        for address in (*near, *_names(f"{state}/leases")):
            if owner(state, address) == container_id:
                found.append(place(runroot, bridge, chosen, container_id, address))
                break
    return found


def bridges(runroot: str) -> list[str]:
    """Names of the bridges that ``runroot`` keeps state of."""
    root = f"{runroot}/network"
    return [name for name in _names(root) if os.path.isdir(f"{root}/{name}/leases")]


def leased(state: str) -> dict[str, str]:
    """The addresses in use under a bridge's state directory, each with its container's id."""
    found = {address: owner(state, address) for address in _names(f"{state}/leases")}
    return {address: container_id for address, container_id in found.items() if container_id}


def rubbish(state: str) -> list[str]:
    """What is among the leases of a bridge and is none."""
    return [name for name in _names(f"{state}/leases") if not owner(state, name)]


def remove_rubbish(state: str) -> None:
    """Remove it."""
    for name in rubbish(state):
        path = f"{state}/leases/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            remove_all(path)
        elif not owner(state, name):
            os.unlink(path)


def owner(state: str, address: str) -> str:
    """The id of the container that holds ``address``; empty when nobody does, or what is there is no lease."""
    try:
        found = os.readlink(f"{state}/leases/{address}")
    except OSError:
        return ""
    return found if path_part(found) else ""


def _take_in(chosen: Subnet, runroot: str, container_id: str, bridge: str) -> Lease:
    """Take the first free address, beginning at one that depends on the id.

    Not at the lowest: an address that was just released may still be in conntrack or in the
    container's veth, which the kernel takes away a little after its namespace.
    """
    state = directory(runroot, bridge)
    for address in _addresses(chosen, container_id):
        try:
            os.symlink(container_id, f"{state}/leases/{address}")
        except FileExistsError:
            continue
        return place(runroot, bridge, chosen, container_id, address)
    raise NetworkError(
        f"lease an address on {bridge}: all {_count(chosen)} of {chosen} are in use",
        hint="stop containers that are no longer needed, or use another --runroot",
    )


def _addresses(chosen: Subnet, container_id: str) -> Iterator[str]:
    """All addresses of a subnet that a container can have, in the order in which it tries them."""
    begin, count = crc32(container_id.encode()), _count(chosen)
    return (ipv4.text(chosen.first + 2 + (begin + i) % count) for i in range(count))


def _count(chosen: Subnet) -> int:
    """Without the network's, the gateway's and the broadcast address."""
    return chosen.last - chosen.first - 2


def _chosen(state: str, bridge: str, wanted: Subnet | None) -> Subnet:
    """The bridge's subnet, under the lock; chosen anew when nothing uses the old one and the host does now."""
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
    """Write down the subnet of a bridge, and which network it belongs to: the path of its file."""
    SUBNET.write(f"{state}/subnet", {"Subnet": str(chosen), "Network": network})


def recorded(state: str) -> Subnet | None:
    """The subnet of the bridge whose state it is; None when it has none yet.

    Where what was written down is damaged, the bridge itself says it.
    """
    try:
        return ipv4.parse_subnet(SUBNET.read(f"{state}/subnet")["Subnet"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Unreadable:
        return _subnet_of(os.path.basename(state))


def network_of(state: str) -> str:
    """The path of the file of the network whose bridge has its state there; "" for none, or one that isn't known."""
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
    """The subnet of a bridge that is there, whose own address is its first; else None."""
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


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
