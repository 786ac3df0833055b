"""The bridge, and what connects a container to it: links, addresses and routes.

Each runroot has a bridge, and so has each named network. The bridge has the gateway address of its subnet. For each
network that it is on, a container has a veth pair: one end is on the bridge, the other is its `eth0`. Links are made
with `rtnetlink`; `firewall` opens the way to the outside. Nothing has to be undone for a container: the kernel
removes the veth pair with the container's namespace.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import struct

from minibox.base.files import AutoClose, remove_all
from minibox.base.lock import Lock
from minibox.errors import NetworkError, kernel_says, suppress, trying
from minibox.network import firewall, ipv4, rtnetlink
from minibox.network import lease as leases
from minibox.network.lease import mac, mac_text, veth_name
from minibox.network.partition import heal
from minibox.network.rtnetlink import Link, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.network.lease import Lease

SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFMTU = 0x8913, 0x8915, 0x8921
IFF_UP = 1
DEFAULT_MTU = 1500


def wire(lease: Lease, netns_fd: int, interface: str = "eth0") -> None:
    """Connect a container's network namespace to the lease's bridge: a link, its address, the default route.

    Call it in the network namespace of the bridge, while the container waits or mounts. It makes or repairs the
    bridge, NAT and forwarding first. The container sets up its own `lo`. You can call it in a process with several
    threads. It takes 1 to 2 ms once the bridge exists.

    Args:
        lease: from `lease.take`.
        netns_fd: an open network namespace (``/proc/<pid>/ns/net``); you need CAP_SYS_ADMIN over it.
        interface: the link's name in it.

    Raises:
        NetworkError: what was tried, and what the kernel or nft said.
    """
    with Wiring(lease.runroot, lease.container_id, f"/proc/thread-self/fd/{netns_fd}") as wiring:
        if not lease.internal:
            wiring.forward_ipv4()
        wiring.bridge_rules(lease.bridge, lease.subnet)
        wiring.add_bridge(lease.bridge, lease.gateway, lease.prefix_length)
        wiring.add_veth(veth_name(lease), lease.bridge, interface, mac_text(lease.address))
        wiring.add_address(interface, lease.address, lease.prefix_length)
        wiring.set_up(interface)
        if not lease.internal:
            wiring.add_route(interface, lease.gateway)
        wiring.await_rules(lease.bridge)


def make(place: Lease) -> None:
    """Make the bridge of a network that has no container yet.

    Raises:
        NetworkError: what was tried, and what the kernel or nft said.
    """
    with Wiring(place.runroot, place.container_id) as wiring:
        if not place.internal:
            wiring.forward_ipv4()
        wiring.bridge_rules(place.bridge, place.subnet)
        wiring.add_bridge(place.bridge, place.gateway, place.prefix_length)
        wiring.await_rules(place.bridge)


class Wiring(AutoClose):
    """The steps that connect a container's network namespace to bridges, one method each.

    It keeps what one step leaves for the next: sockets, and a running nft.
    """

    def __init__(self, runroot: str, container_id: str, netns: str = "") -> None:
        """``netns`` is the path of the container's network namespace; "" for a bridge without a container.

        Raises:
            OSError: it can't be opened.
        """
        self._runroot, self._id = runroot, container_id
        self._netns_fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC) if netns else -1
        self._requests = rtnetlink.requests(f"{runroot}/network")
        self._links: dict[str, Link] = {}
        self._inside: tuple[str, int] = "", 0
        self._at: tuple[int, int] = 0, 0  # the bridge's index and MTU
        self._pending: firewall.Pending | None = None

    def close(self) -> None:
        """Close the sockets, and wait for nft if it still runs."""
        for link in self._links.values():
            link.close()
        self._links = {}
        if self._netns_fd >= 0:
            os.close(self._netns_fd)
            self._netns_fd = -1
        if self._pending:
            self._pending.wait()
            self._pending = None

    def forward_ipv4(self) -> None:
        firewall.enable_forwarding()

    def bridge_rules(self, bridge: str, subnet: str) -> None:
        """Start putting the rules in place, and don't wait: if nft has to run, it takes a while."""
        self._pending = firewall.begin(self._runroot, bridge, subnet)

    def await_rules(self, _bridge: str) -> None:
        pending, self._pending = self._pending, None
        if problem := pending.wait() if pending else None:
            raise problem

    def add_bridge(self, bridge: str, gateway: str, prefix: int) -> None:
        with trying(NetworkError, f"make bridge {bridge}"):
            self._at = _ensure_bridge(self._runroot, bridge, gateway, prefix, self._requests, self._host())

    def add_veth(self, veth: str, bridge: str, interface: str, mac_address: str) -> None:
        """Make the veth pair in one request: one end up and on the bridge, the other in the container's namespace."""
        index, mtu = self._at
        with trying(NetworkError, f"wire {bridge} to {self._id[:12]}"):
            values = {
                "name": rtnetlink.name(veth),
                "peer": rtnetlink.name(interface),
                "bridge_index": number(index),
                "mtu": number(mtu),
                "netns_fd": number(self._netns_fd),
                "mac": bytes.fromhex(mac_address.replace(":", "")),
            }
            _add_veth(bridge, self._requests, self._host(), values, lambda: _unwire(self._runroot, veth))

    def add_address(self, interface: str, address: str, prefix: int) -> None:
        """Inside the container's namespace, like the next two."""
        values = {
            "address": _socket.inet_aton(address),
            "broadcast": _socket.inet_aton(_broadcast(address, prefix)),
            "prefix_length": bytes((prefix,)),
        }
        self._configure("add address", interface, values, address)

    def set_up(self, interface: str) -> None:
        self._configure("set up", interface, {})

    def add_route(self, interface: str, gateway: str) -> None:
        self._configure("add default route", interface, {"gateway": _socket.inet_aton(gateway)}, gateway)

    def _configure(self, step: str, interface: str, values: dict[str, bytes], on: str = "") -> None:
        with trying(NetworkError, f"{step} of {interface}"):
            inside, index = self._enter(interface)
            (answer,) = inside.send(self._requests[step].fill({"index": number(index), **values}))
            if answer and not (step == "add default route" and answer.errno == errno.EEXIST):  # from another network
                raise NetworkError(f"{step} of {interface}{f' ({on})' if on else ''}: {_says(answer)}")

    def _enter(self, interface: str) -> tuple[Link, int]:
        """Return a socket in the container's namespace, and the index of a link there."""

        def enter() -> tuple[int, Link]:
            _disable_ipv6(interface)
            return _socket.if_nametoindex(interface), Link()

        if self._inside[0] != interface:
            if before := self._links.pop("inside", None):
                before.close()
            index, self._links["inside"] = rtnetlink.in_netns(self._netns_fd, enter)
            self._inside = interface, index
        return self._links["inside"], self._inside[1]

    def _host(self) -> Link:
        if "host" not in self._links:
            self._links["host"] = Link()
        return self._links["host"]


def free_interface(netns_fd: int) -> str:
    """Return the first of eth0, eth1 ... that is free in a network namespace."""
    taken = {name for _, name in rtnetlink.in_netns(netns_fd, _socket.if_nameindex)}
    return next(name for number in range(len(taken) + 1) if (name := f"eth{number}") not in taken)


def route_out(lease: Lease, netns_fd: int) -> None:
    """Add a default route over this bridge to a network namespace, unless it has one already."""
    requests = rtnetlink.requests(f"{lease.runroot}/network")
    with rtnetlink.in_netns(netns_fd, Link) as inside:
        (answer,) = inside.send(requests["add default route"].fill({"gateway": _socket.inet_aton(lease.gateway)}))
    if answer and answer.errno != errno.EEXIST:
        raise NetworkError(f"add a default route by {lease.gateway}: {_says(answer)}")


def hairpin(runroot: str, veth: str) -> None:
    """Let the bridge send a container's packets back to it, so that it can reach its own published ports.

    With br_netfilter loaded these packets pass through the bridge, which normally never sends a packet out of the
    port that it came in by.

    Raises:
        NetworkError: the kernel refuses.
    """
    requests = rtnetlink.requests(f"{runroot}/network")
    index = _socket.if_nametoindex(veth)
    with Link() as host:
        (answer,) = host.send(requests["reflect"].fill({"index": number(index)}))
    if answer:
        raise NetworkError(f"set hairpin mode of {veth}: {_says(answer)}")


def unwire(lease: Lease) -> None:
    """Delete the container's veth pair now, not when the kernel frees its namespace. It is no error if it is gone."""
    _unwire(lease.runroot, veth_name(lease))


def _unwire(runroot: str, veth: str) -> None:
    try:
        index = _socket.if_nametoindex(veth)
    except OSError:
        return
    _delete(runroot, index, veth)


def remove_bridge(runroot: str, bridge: str = "") -> None:
    """Remove a bridge without leases, with its firewall elements and its state; "" for the runroot's own bridge.

    Raises:
        NetworkError: an address is still leased, or the kernel or nft refuses.
    """
    bridge = bridge or leases.bridge_name(runroot)
    state = leases.directory(runroot, bridge)
    with trying(NetworkError, f"remove bridge {bridge}"), suppress(FileNotFoundError):
        with Lock(state):
            held = leases.leased(state)
            if held:
                raise NetworkError(
                    f"remove bridge {bridge}: {len(held)} addresses are in use, such as {', '.join(sorted(held)[:3])}",
                    hint="stop the containers on it first",
                )
            heal(runroot, bridge)
            firewall.remove(runroot, bridge)
            try:
                index = _socket.if_nametoindex(bridge)
            except OSError:
                index = 0
            if index:
                _delete(runroot, index, bridge)
            leases.remove_rubbish(state)
            os.rmdir(f"{state}/leases")  # fails if a container has just taken one
            remove_all(state)


def _broadcast(address: str, prefix: int) -> str:
    return ipv4.text(ipv4.parse_subnet(f"{address}/{prefix}").last)


def _ensure_bridge(
    runroot: str, bridge: str, gateway: str, prefix: int, requests: dict[str, rtnetlink.Request], host: Link
) -> tuple[int, int]:
    """Return the bridge's (index, MTU). Make or repair it if it is missing, down or without its address."""
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        if not _is_ready(control, bridge, gateway):
            with Lock(leases.directory(runroot, bridge)):
                _make_bridge(bridge, gateway, prefix, requests, host, control)
        return _socket.if_nametoindex(bridge), _mtu(control, bridge)
    finally:
        control.close()


def _is_ready(control: _socket.socket, bridge: str, gateway: str) -> bool:
    try:
        address = _ioctl(control, SIOCGIFADDR, bridge)[4:8]
        (flags,) = struct.unpack_from("=H", _ioctl(control, SIOCGIFFLAGS, bridge))
    except OSError:  # ENODEV: no such link; EADDRNOTAVAIL: no address
        return False
    return address == _socket.inet_aton(gateway) and bool(flags & IFF_UP)


def _make_bridge(
    bridge: str, gateway: str, prefix: int, requests: dict[str, rtnetlink.Request], host: Link, control: _socket.socket
) -> None:
    """Add the bridge and its address, and set it up. Any of these may exist already.

    Give it a MAC address; otherwise it takes the lowest one of its ports, which changes when ports come and go. Give it
    the MTU of the default route; otherwise large packets get lost behind a VPN.
    """
    values = {"name": rtnetlink.name(bridge), "mac": mac(gateway), "mtu": number(_outer_mtu(control))}
    (answer,) = host.send(requests["add bridge"].fill(values))
    if answer and answer.errno != errno.EEXIST:
        hint = "load the kernel module bridge: modprobe bridge" if answer.errno == errno.EOPNOTSUPP else None
        raise NetworkError(f"add bridge {bridge}: {_says(answer)}", hint)
    index = number(_socket.if_nametoindex(bridge))
    address = {
        "index": index,
        "address": _socket.inet_aton(gateway),
        "broadcast": _socket.inet_aton(_broadcast(gateway, prefix)),
        "prefix_length": bytes((prefix,)),
    }
    answers = host.send(requests["add address"].fill(address), requests["set up"].fill({"index": index}))
    for answer, tried in zip(answers, (f"add {gateway} to", "set up"), strict=True):
        if answer and answer.errno != errno.EEXIST:
            raise NetworkError(f"{tried} bridge {bridge}: {_says(answer)}")


def _add_veth(
    bridge: str,
    requests: dict[str, rtnetlink.Request],
    host: Link,
    values: dict[str, bytes],
    unwire_before: Callable[[], None],
) -> None:
    (answer,) = host.send(requests["add veth"].fill(values))
    if answer and answer.errno == errno.EEXIST:  # left from its last start: the kernel frees namespaces later
        unwire_before()
        (answer,) = host.send(requests["add veth"].fill(values))
    if not answer:
        return
    hint = None
    if answer.errno == errno.EXFULL:
        hint = "a bridge takes 1023 ports; use another --runroot for more containers"
    elif answer.errno == errno.EOPNOTSUPP:
        hint = "load the kernel module veth: modprobe veth"
    raise NetworkError(f"add a veth pair to bridge {bridge}: {_says(answer)}", hint)


def _disable_ipv6(interface: str) -> None:
    """Switch off IPv6 on an interface in the calling thread's network namespace, as Docker does.

    Our networks are IPv4 only. A link-local IPv6 address would let others reach the container around the IPv4 rules,
    and its solicitations would go to every port of the bridge.
    """
    with suppress(FileNotFoundError):  # a kernel without IPv6
        with open(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6", "wb", 0) as file:
            file.write(b"1")


def _delete(runroot: str, index: int, name: str) -> None:
    requests = rtnetlink.requests(f"{runroot}/network")
    with Link() as host:
        (answer,) = host.send(requests["delete link"].fill({"index": number(index)}))
    if answer and answer.errno != errno.ENODEV:
        raise NetworkError(f"delete link {name}: {_says(answer)}")


def _outer_mtu(control: _socket.socket) -> int:
    """Return the MTU of the link with the default route; 1500 if there is none."""
    try:
        with open("/proc/thread-self/net/route", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return DEFAULT_MTU
    outer = [row[0] for row in rows[1:] if len(row) > 7 and row[1] == row[7] == "00000000"]
    return min(_mtu(control, outer[0]), 65535) if outer else DEFAULT_MTU


def _mtu(control: _socket.socket, name: str) -> int:
    return int(struct.unpack_from("=i", _ioctl(control, SIOCGIFMTU, name))[0])


def _ioctl(control: _socket.socket, request: int, name: str) -> bytes:
    """Make an ioctl with a struct ifreq (netdevice(7)), and return its union."""
    return fcntl.ioctl(control.fileno(), request, rtnetlink.name(name) + bytes(24))[16:]


def _says(answer: OSError) -> str:
    """Return the error by name, and the kernel's own message if it sent one (NLMSGERR_ATTR_MSG)."""
    return kernel_says(answer) + (f": {answer.strerror}" if answer.strerror != os.strerror(answer.errno or 0) else "")
