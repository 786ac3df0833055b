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
from binascii import crc32

from minibox.base.files import remove_all
from minibox.base.lock import Lock
from minibox.errors import NetworkError, kernel_says
from minibox.network import firewall, ipv4, rtnetlink
from minibox.network import lease as leases
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

    def add(requests: dict[str, rtnetlink.Request], host: Link, bridge_index: int, mtu: int) -> None:
        _add_veth(lease, requests, host, netns_fd, interface, bridge_index, mtu)
        _configure(lease, requests, netns_fd, interface)

    _with_bridge(lease, f"wire {lease.bridge} to {lease.container_id[:12]}", add)


def make(place: Lease) -> None:
    """Make the bridge of a network that has no container yet.

    Raises:
        NetworkError: what was tried, and what the kernel or nft said.
    """
    _with_bridge(place, f"make bridge {place.bridge}", lambda *_: None)


def _with_bridge(
    lease: Lease, trying: str, act: Callable[[dict[str, rtnetlink.Request], Link, int, int], None]
) -> None:
    """Make sure that the bridge and its rules exist; while nft runs, call ``act`` with the bridge's index and MTU."""
    if not lease.internal:
        firewall.enable_forwarding()
    pending = firewall.begin(lease.runroot, lease.bridge, lease.subnet)
    try:
        requests = rtnetlink.requests(f"{lease.runroot}/network")
        with Link() as host:
            act(requests, host, *_ensure_bridge(lease, requests, host))
    except OSError as error:
        raise NetworkError(f"{trying}: {kernel_says(error)}") from error
    finally:
        problem = pending.wait() if pending else None
    if problem:
        raise problem


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


def reflect(lease: Lease) -> None:
    """Let the bridge send a container's packets back to it, so that it can reach its own published ports.

    With br_netfilter loaded these packets pass through the bridge, which normally never sends a packet out of the
    port that it came in by.

    Raises:
        NetworkError: the kernel refuses.
    """
    requests = rtnetlink.requests(f"{lease.runroot}/network")
    index = _socket.if_nametoindex(veth_name(lease))
    with Link() as host:
        (answer,) = host.send(requests["reflect"].fill({"index": number(index)}))
    if answer:
        raise NetworkError(f"set hairpin mode of {veth_name(lease)}: {_says(answer)}")


def unwire(lease: Lease) -> None:
    """Delete the container's veth pair now, not when the kernel frees its namespace. It is no error if it is gone."""
    try:
        index = _socket.if_nametoindex(veth_name(lease))
    except OSError:
        return
    _delete(lease.runroot, index, veth_name(lease))


def remove_bridge(runroot: str, bridge: str = "") -> None:
    """Remove a bridge without leases, with its firewall elements and its state; "" for the runroot's own bridge.

    Raises:
        NetworkError: an address is still leased, or the kernel or nft refuses.
    """
    bridge = bridge or leases.bridge_name(runroot)
    state = leases.directory(runroot, bridge)
    try:
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
    except FileNotFoundError:
        return
    except OSError as error:
        raise NetworkError(f"remove bridge {bridge}: {kernel_says(error)}") from error


def veth_name(lease: Lease) -> str:
    """Return the name of the host's end of a container's veth pair: ``mbv`` and 12 hex digits.

    On the default bridge these are the first digits of a random id. An id that the user chose may exist in two state
    roots: then they are a CRC-32 of runroot, bridge and id. On a named network they are a CRC-32 of bridge and id (a
    container has a veth pair for each network), and 4 digits of the id, to make equal names less likely.
    """
    container_id = lease.container_id
    if not (len(container_id) >= 32 and all(c in "0123456789abcdef" for c in container_id)):
        return f"mbv{crc32(os.fsencode(f'{lease.runroot}/{lease.bridge}/{container_id}')):012x}"
    if lease.bridge == leases.bridge_name(lease.runroot):
        return f"mbv{container_id[:12]}"
    return f"mbv{crc32(f'{lease.bridge}/{container_id}'.encode()):08x}{container_id[:4]}"


def mac(address: str) -> bytes:
    """Return a locally administered MAC address derived from the IPv4 address.

    The next container with this address gets the same MAC, so the neighbours' ARP caches stay right.
    """
    return b"\x02\x6d" + _socket.inet_aton(address)


def _ensure_bridge(lease: Lease, requests: dict[str, rtnetlink.Request], host: Link) -> tuple[int, int]:
    """Return the bridge's (index, MTU). Make or repair it if it is missing, down or without its address."""
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        if not _is_ready(control, lease):
            with Lock(leases.directory(lease.runroot, lease.bridge)):
                _make_bridge(lease, requests, host, control)
        return _socket.if_nametoindex(lease.bridge), _mtu(control, lease.bridge)
    finally:
        control.close()


def _is_ready(control: _socket.socket, lease: Lease) -> bool:
    try:
        address = _ioctl(control, SIOCGIFADDR, lease.bridge)[4:8]
        (flags,) = struct.unpack_from("=H", _ioctl(control, SIOCGIFFLAGS, lease.bridge))
    except OSError:  # ENODEV: no such link; EADDRNOTAVAIL: no address
        return False
    return address == _socket.inet_aton(lease.gateway) and bool(flags & IFF_UP)


def _make_bridge(lease: Lease, requests: dict[str, rtnetlink.Request], host: Link, control: _socket.socket) -> None:
    """Add the bridge and its address, and set it up. Any of these may exist already.

    Give it a MAC address: otherwise it takes the lowest one of its ports, which changes when ports come and go. Give
        it the
    MTU of the default route: otherwise large packets get lost behind a VPN.
    """
    values = {
        "name": rtnetlink.name(lease.bridge),
        "mac": mac(lease.gateway),
        "mtu": number(_outer_mtu(control)),
    }
    (answer,) = host.send(requests["add bridge"].fill(values))
    if answer and answer.errno != errno.EEXIST:
        hint = "load the kernel module bridge: modprobe bridge" if answer.errno == errno.EOPNOTSUPP else None
        raise NetworkError(f"add bridge {lease.bridge}: {_says(answer)}", hint)
    index = number(_socket.if_nametoindex(lease.bridge))
    subnet = ipv4.parse_subnet(lease.subnet)
    address = {
        "index": index,
        "address": _socket.inet_aton(lease.gateway),
        "broadcast": _socket.inet_aton(ipv4.text(subnet.last)),
        "prefix_length": bytes((lease.prefix_length,)),
    }
    answers = host.send(requests["add address"].fill(address), requests["set up"].fill({"index": index}))
    for answer, tried in zip(answers, (f"add {lease.gateway} to", "set up"), strict=True):
        if answer and answer.errno != errno.EEXIST:
            raise NetworkError(f"{tried} bridge {lease.bridge}: {_says(answer)}")


def _add_veth(
    lease: Lease,
    requests: dict[str, rtnetlink.Request],
    host: Link,
    netns_fd: int,
    interface: str,
    bridge_index: int,
    mtu: int,
) -> None:
    """Make the veth pair in one request: one end up and on the bridge, the other in the container's namespace."""
    values = {
        "name": rtnetlink.name(veth_name(lease)),
        "peer": rtnetlink.name(interface),
        "bridge_index": number(bridge_index),
        "mtu": number(mtu),
        "netns_fd": number(netns_fd),
        "mac": mac(lease.address),
    }
    (answer,) = host.send(requests["add veth"].fill(values))
    if answer and answer.errno == errno.EEXIST:  # left from its last start: the kernel frees namespaces later
        unwire(lease)
        (answer,) = host.send(requests["add veth"].fill(values))
    if not answer:
        return
    hint = None
    if answer.errno == errno.EXFULL:
        hint = "a bridge takes 1023 ports; use another --runroot for more containers"
    elif answer.errno == errno.EOPNOTSUPP:
        hint = "load the kernel module veth: modprobe veth"
    raise NetworkError(f"add a veth pair to bridge {lease.bridge}: {_says(answer)}", hint)


def _configure(lease: Lease, requests: dict[str, rtnetlink.Request], netns_fd: int, interface: str) -> None:
    """Inside the container's namespace, set the link's address, set it up and add the default route, all at once."""

    def enter() -> tuple[int, Link]:
        _disable_ipv6(interface)
        return _socket.if_nametoindex(interface), Link()

    index, inside = rtnetlink.in_netns(netns_fd, enter)
    values = {
        "index": number(index),
        "address": _socket.inet_aton(lease.address),
        "broadcast": _socket.inet_aton(ipv4.text(ipv4.parse_subnet(lease.subnet).last)),
        "prefix_length": bytes((lease.prefix_length,)),
        "gateway": _socket.inet_aton(lease.gateway),
    }
    steps = ("add address", "set up", *(() if lease.internal else ("add default route",)))
    with inside:
        answers = inside.send(*(requests[step].fill(values) for step in steps))
    for answer, step in zip(answers, steps, strict=True):
        if answer and not (step == "add default route" and answer.errno == errno.EEXIST):  # from another network
            raise NetworkError(f"{step} of {interface} ({lease.address} by {lease.gateway}): {_says(answer)}")


def _disable_ipv6(interface: str) -> None:
    """Switch off IPv6 on an interface in the calling thread's network namespace, as Docker does.

    Our networks are IPv4 only. A link-local IPv6 address would let others reach the container around the IPv4 rules,
    and its solicitations would go to every port of the bridge.
    """
    try:
        with open(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6", "wb", 0) as file:
            file.write(b"1")
    except FileNotFoundError:
        pass  # a kernel without IPv6


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
