"""Published ports: reserved on the host, and led to a container by the kernel.

A port is reserved by a socket that is bound to it: so nobody else gets it, and who tries is told. Packets never come
to that socket: a table of nftables of the container's own, ``table ip minibox-<id>``, changes their destination before.

    published      what leads each port to the container; asked by the next two, for what is sent to this host
    prerouting     connections that come in, from a container too
    output         connections of this host itself, to 127.0.0.1 too
    postrouting    who could not be answered else speaks with the bridge's address: 127.0.0.1, and the bridge's others
    guard          what comes from elsewhere for 127.0.0.0/8 is lost

Everybody else is seen with his own address. For 127.0.0.1 the bridge has `route_localnet`, by which its containers
could reach this host's loopback, but for the guard; `firewall` has another for when this table is gone. The table
belongs to its socket (see `nfnetlink`): both sockets are held by who looks after the container, and go with him.
"""

from __future__ import annotations

import _socket
from errno import E2BIG, EACCES, EADDRINUSE, EADDRNOTAVAIL, EMFILE

from minibox.errors import NetworkError, PortTaken, kernel_says
from minibox.network import firewall, ipv4
from minibox.network import nfnetlink as nft
from minibox.network.conntrack import forget_datagrams
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minibox.network.lease import Lease

ANY_ADDRESS = "0.0.0.0"
LOOPBACK = bytes((127, 0, 0, 0)), 8
PROTOCOLS = {"tcp": _socket.IPPROTO_TCP, "udp": _socket.IPPROTO_UDP}
BACKLOG = 1


@record
class Wanted:
    """A port of a container that is to be published.

    Attributes:
        address: of this host; ``0.0.0.0``: all.
        first, last: any of these ports will do; 0: any at all.
        inside: the container's port.
        protocol: tcp or udp.
    """

    address: str
    first: int
    last: int
    inside: int
    protocol: str

    def __str__(self) -> str:
        ports = f"{self.first}-{self.last}" if self.last > self.first else str(self.first or "*")
        return f"{self.address}:{ports}->{self.inside}/{self.protocol}"


@record
class Published:
    """A port of this host that leads to a container."""

    address: str
    port: int
    inside: int
    protocol: str


def reserve(wanted: Wanted) -> tuple[Published, int]:
    """Bind a socket to the first port that is free; the port, and the socket's descriptor, which the caller closes.

    Raises:
        PortTaken: none is.
        NetworkError: this host doesn't have the address, or there are no more descriptors.
    """
    for port in range(wanted.first, wanted.last + 1):
        try:
            fd, port = _bound(wanted, port)
        except OSError as error:
            if error.errno == EADDRINUSE:
                continue
            hint = {
                EACCES: "below 1024 a port is root's: choose a higher one, or sysctl net.ipv4.ip_unprivileged_port_start=80",
                EADDRNOTAVAIL: "it is none of this host's addresses: ip address",
                EMFILE: "each published port takes a descriptor: ulimit -n allows more",
            }.get(error.errno or 0)
            raise NetworkError(f"publish {wanted}: bind port {port}: {kernel_says(error)}", hint) from error
        return Published(wanted.address, port, wanted.inside, wanted.protocol), fd
    raise PortTaken(str(wanted), wanted.address, wanted.first, wanted.protocol)


def _bound(wanted: Wanted, port: int) -> tuple[int, int]:
    kind = _socket.SOCK_STREAM if wanted.protocol == "tcp" else _socket.SOCK_DGRAM
    made = _socket.socket(_socket.AF_INET, kind | _socket.SOCK_CLOEXEC)
    try:
        if port and wanted.protocol == "tcp":  # connections that have just ended don't hold it
            made.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        made.bind((wanted.address, port))
        if wanted.protocol == "tcp":
            made.listen(BACKLOG)  # else another with SO_REUSEADDR gets it too
        port = made.getsockname()[1]
        return made.detach(), port
    except BaseException:
        made.close()
        raise


def lead(lease: Lease, ports: Sequence[Published]) -> int:
    """Have the kernel lead ports to the container of a lease, until the descriptor that is returned is closed.

    The bridge is there already.

    Raises:
        NetworkError: the kernel refuses.
    """
    table = f"minibox-{lease.container_id[:12]}"
    try:
        held = firewall.change_beside(lease.runroot, lambda: nft.send(_table(table, lease, ports)))
    except OSError as error:
        hint = "the kernel may lack a module: modprobe -a nf_tables nft_chain_nat nft_fib_ipv4 nft_nat nft_masq nft_ct"
        if error.errno == E2BIG:
            hint = "the kernel takes 1024 chains a hook: so many containers can have published ports"
        raise NetworkError(f"lead ports to {lease.address} by nftables: {kernel_says(error)}", hint) from error
    try:
        _route_loopback(lease.bridge)
        if datagrams := {each.port for each in ports if each.protocol == "udp"}:
            forget_datagrams(datagrams)
    except BaseException as error:
        held.close()
        if isinstance(error, OSError):
            raise NetworkError(f"lead ports to {lease.address}: {error.filename or 'conntrack'}: {kernel_says(error)}",
                               "minibox needs to write /proc/sys/net") from error  # fmt: skip
        raise
    return held.detach()


def _table(name: str, lease: Lease, ports: Sequence[Published]) -> list[bytes]:
    address, subnet = _socket.inet_aton(lease.address), ipv4.parse_subnet(lease.subnet)
    bridge = subnet.first.to_bytes(4, "big"), subnet.prefix_length
    rules = [
        nft.rule(name, "guard", nft.not_by("lo"), nft.destination_in(*LOOPBACK), nft.drop()),
        *(nft.rule(name, chain, nft.to_this_host(), nft.jump("published")) for chain in ("prerouting", "output")),
        *(
            nft.rule(
                name,
                "postrouting",
                nft.source_in(*source),
                nft.destination_in(address),
                nft.was_redirected(),
                nft.masquerade(),
            )
            for source in (LOOPBACK, bridge)
        ),
    ]
    for each in ports:
        of_one = nft.destination_in(_socket.inet_aton(each.address)) if each.address != ANY_ADDRESS else []
        to_port = nft.to_port(PROTOCOLS[each.protocol], each.port)
        rules.append(nft.rule(name, "published", of_one, to_port, nft.redirect(address, each.inside)))
    return [
        nft.table(name),
        nft.chain(name, "published"),
        nft.chain(name, "guard", "filter", nft.PREROUTING, nft.RAW),
        nft.chain(name, "prerouting", "nat", nft.PREROUTING, nft.DSTNAT),
        nft.chain(name, "output", "nat", nft.OUTPUT, nft.DSTNAT),
        nft.chain(name, "postrouting", "nat", nft.POSTROUTING, nft.SRCNAT),
        *rules,
    ]


def _route_loopback(bridge: str) -> None:
    with open(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet", "rb+", buffering=0) as file:
        if file.read(1) != b"1":
            file.seek(0)
            file.write(b"1")
