"""Make the kernel forget UDP connections (conntrack, over NETLINK_NETFILTER).

The first packet of a connection decides where all its packets go. If a program keeps sending datagrams, they stay one
connection, and keep going to a port of this host, or to a container that has ended. Numbers are from
linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import _socket
import struct

from minibox.base.files import text_of
from minibox.network.firewall import NETLINK_NETFILTER, NLM_F_REQUEST
from minibox.network.rtnetlink import attributes_in
from minibox.network.subnet import fib_leaves

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

NFNL_SUBSYS_CTNETLINK = 1
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1, 2
NLM_F_DUMP = 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
CTA_TUPLE_ORIG, CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 1, 2
CTA_IP_V4_DST, CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 2, 1, 3


def forget_datagrams(ports: Collection[int]) -> None:
    """Forget UDP connections to these ports of this host, so that the next packet of each counts as a first one.

    Raises:
        OSError: the kernel refuses.
    """
    here = {_socket.inet_aton(address) for address in local_addresses(text_of("/proc/thread-self/net/fib_trie"))}
    netfilter = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        netfilter.sendto(_message(IPCTNL_MSG_CT_GET, NLM_F_DUMP), (0, 0))
        found = [tuple_ for tuple_ in _dumped(netfilter) if _leads(tuple_, here, ports)]
        for each in found:
            netfilter.sendto(_message(IPCTNL_MSG_CT_DELETE, 0, each), (0, 0))  # it may have ended meanwhile
    finally:
        netfilter.close()


def local_addresses(fib_trie: str) -> set[str]:
    """Return this host's own addresses; of 127.0.0.0/8 only 127.0.0.1."""
    return {address for address, route in fib_leaves(fib_trie) if route == "/32 host LOCAL"}


def _message(kind: int, flags: int, attributes: bytes = b"") -> bytes:
    body = struct.pack(">BBH", _socket.AF_INET, 0, 0) + attributes
    return struct.pack("=IHHII", 16 + len(body), NFNL_SUBSYS_CTNETLINK << 8 | kind, NLM_F_REQUEST | flags, 0, 0) + body


def _dumped(netfilter: _socket.socket) -> Iterator[bytes]:
    """Yield the whole attribute CTA_TUPLE_ORIG of each connection."""
    while True:
        data = netfilter.recv(1 << 17)
        offset = 0
        while offset + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            if kind in (NLMSG_DONE, NLMSG_ERROR) or length < 16:
                return
            for number, whole, _ in attributes_in(data[offset + 20 : offset + length]):
                if number == CTA_TUPLE_ORIG:
                    yield whole
            offset += (length + 3) & ~3


def _values(data: bytes) -> dict[int, bytes]:
    return {number: value for number, _, value in attributes_in(data)}


def _leads(connection: bytes, here: Collection[bytes], ports: Collection[int]) -> bool:
    parts = _values(connection[4:])
    address, transport = _values(parts.get(CTA_TUPLE_IP, b"")), _values(parts.get(CTA_TUPLE_PROTO, b""))
    return (
        transport.get(CTA_PROTO_NUM) == bytes((_socket.IPPROTO_UDP,))
        and int.from_bytes(transport.get(CTA_PROTO_DST_PORT, b""), "big") in ports
        and address.get(CTA_IP_V4_DST) in here
    )
