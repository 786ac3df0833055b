"""Published ports: reserved on the host, and redirected to a container by the kernel.

A socket bound to the port reserves it: nobody else can have the port, and whoever tries gets an error. No packet
reaches that socket, because the container's own nftables table, ``table ip minibox-<id>``, changes their destination
before. Its chains:

    published      redirects each port to the container; the next two jump to it for packets to this host
    prerouting     connections that come in, also from containers
    output         connections from this host itself, also to 127.0.0.1
    postrouting    replaces the source by the bridge's address if replies would get lost otherwise: connections from
                   127.0.0.1, and from other containers on the bridge
    guard          drops packets to 127.0.0.0/8 that come from elsewhere

The container sees all other clients with their own address. To make 127.0.0.1 work, `route_localnet` is set on the
bridge. That alone would let its containers reach this host's loopback; the guard prevents it, and `firewall` has
another guard for when this table is gone. The table belongs to its socket (see `nfnetlink`). The container's owner or
supervisor holds both sockets, and they close when it ends.
"""

from __future__ import annotations

import _socket
from errno import E2BIG, EACCES, EADDRINUSE, EADDRNOTAVAIL, EMFILE

from minibox.errors import NetworkError, PortTaken, kernel_says, on_failure
from minibox.network import firewall, ipv4
from minibox.network import nfnetlink as nft
from minibox.network.conntrack import forget_datagrams
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ANY_ADDRESS = "0.0.0.0"
LOOPBACK = bytes((127, 0, 0, 0)), 8
PROTOCOLS = {"tcp": _socket.IPPROTO_TCP, "udp": _socket.IPPROTO_UDP}
BACKLOG = 1


@record
class Wanted:
    """A container's port to publish.

    Attributes:
        address: an address of this host; ``0.0.0.0`` for all.
        first, last: the range of ports to choose from; 0: any port.
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
    """A port of this host that is redirected to a container."""

    address: str
    port: int
    inside: int
    protocol: str


def reserve(wanted: Wanted) -> tuple[Published, int]:
    """Bind a socket to the first free port. Return the port and the socket's descriptor, which the caller closes.

    Raises:
        PortTaken: no port is free.
        NetworkError: this host doesn't have the address, or no descriptor is free.
    """
    for port in range(wanted.first, wanted.last + 1):
        try:
            fd, port = _bound(wanted, port)
        except OSError as error:
            if error.errno == EADDRINUSE:
                continue
            hint = {
                EACCES: "ports below 1024 are root's: choose a higher one, or sysctl net.ipv4.ip_unprivileged_port_start=80",
                EADDRNOTAVAIL: "this host doesn't have that address: ip address lists them",
                EMFILE: "each published port needs a descriptor: raise the limit with ulimit -n",
            }.get(error.errno or 0)
            raise NetworkError(f"publish {wanted}: bind port {port}: {kernel_says(error)}", hint) from error
        return Published(wanted.address, port, wanted.inside, wanted.protocol), fd
    raise PortTaken(str(wanted), wanted.address, wanted.first, wanted.protocol)


def _bound(wanted: Wanted, port: int) -> tuple[int, int]:
    kind = _socket.SOCK_STREAM if wanted.protocol == "tcp" else _socket.SOCK_DGRAM
    made = _socket.socket(_socket.AF_INET, kind | _socket.SOCK_CLOEXEC)
    with on_failure(made.close):
        if port and wanted.protocol == "tcp":  # so that connections that have just ended don't block it
            made.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        made.bind((wanted.address, port))
        if wanted.protocol == "tcp":
            made.listen(BACKLOG)  # otherwise another socket with SO_REUSEADDR could get the port, too
        port = made.getsockname()[1]
        return made.detach(), port


class Batch:
    """What leads ports to one container: collected, then put into force in one transaction."""

    def __init__(self, runroot: str, table: str, address: str, subnet: str) -> None:
        self._runroot, self._table, self._address, self._subnet = runroot, table, address, subnet
        self._ports: list[Published] = []

    @property
    def count(self) -> int:
        """How many ports were added."""
        return len(self._ports)

    def add(self, port: Published) -> None:
        """One more port."""
        self._ports.append(port)

    def commit(self, bridge: str) -> int:
        """Have the kernel lead the ports to the container, until the descriptor that is returned is closed.

        The bridge is there already.

        Raises:
            NetworkError: the kernel refuses.
        """
        messages = _rules(self._table, self._address, self._subnet, self._ports)
        try:
            held = firewall.change_beside(self._runroot, lambda: nft.send(messages))
        except OSError as error:
            hint = (
                "the kernel may lack a module: modprobe -a nf_tables nft_chain_nat nft_fib_ipv4 nft_nat nft_masq nft_ct"
            )
            if error.errno == E2BIG:
                hint = "the kernel takes 1024 chains a hook: so many containers can have published ports"
            raise NetworkError(f"lead ports to {self._address} by nftables: {kernel_says(error)}", hint) from error
        try:
            _route_loopback(bridge)
            if datagrams := {each.port for each in self._ports if each.protocol == "udp"}:
                forget_datagrams(datagrams)
        except BaseException as error:
            held.close()
            if isinstance(error, OSError):
                raise NetworkError(
                    f"lead ports to {self._address}: {error.filename or 'conntrack'}: {kernel_says(error)}",
                    "minibox needs to write /proc/sys/net",
                ) from error
            raise
        return held.detach()


def table_name(container_id: str) -> str:
    """Of the table of a container."""
    return f"minibox-{container_id[:12]}"


def _rules(name: str, to: str, bridges: str, ports: Sequence[Published]) -> list[bytes]:
    address, subnet = _socket.inet_aton(to), ipv4.parse_subnet(bridges)
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
