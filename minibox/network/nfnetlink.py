"""nftables tables that belong to a socket, made with the kernel's own messages (NETLINK_NETFILTER).

Such a table has an *owner* (NFT_TABLE_F_OWNER, Linux 5.12): nobody else can change it, `flush ruleset` leaves it
alone, and the kernel deletes it when the last copy of the socket that made it is closed, even if its holder is
killed. The nft command can't make one that outlives it, because its socket closes when it exits. Numbers are from
linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import _socket
import os
import struct

from minibox.network.firewall import NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES, NLM_F_REQUEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 16, 17
NFT_MSG_NEWTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE = 0, 3, 6
NLM_F_ACK, NLM_F_CREATE, NLM_F_APPEND = 0x4, 0x400, 0x800
NLMSG_ERROR = 2
NLA_F_NESTED = 0x8000
NFPROTO_IPV4 = 2
NFT_TABLE_F_OWNER = 2
SO_SNDBUFFORCE = 32

PREROUTING, OUTPUT, POSTROUTING = 0, 3, 4  # NF_INET_*
RAW, DSTNAT, SRCNAT = -300, -100, 100  # NF_IP_PRI_*
NFT_JUMP, NF_DROP = -3, 0
EQUAL, OTHER = 0, 1  # NFT_CMP_EQ, NFT_CMP_NEQ
REGISTER, SECOND = 1, 2  # NFT_REG_1 and 2, 16 bytes each; NFT_REG_VERDICT is 0
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
META_IIFNAME, META_L4PROTO = 6, 16
CT_STATUS, IPS_DST_NAT = 2, 1 << 5
FIB_ADDRTYPE, FIB_DADDR, RTN_LOCAL = 3, 2, 2


def attribute(kind: int, value: bytes | int | str | tuple[bytes, ...]) -> bytes:
    """Encode an attribute: an int as 32 bits in network order, a str with a NUL, a tuple as nested attributes."""
    if isinstance(value, tuple):
        kind, value = kind | NLA_F_NESTED, b"".join(value)
    elif isinstance(value, int):
        value = struct.pack(">I", value & 0xFFFFFFFF)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def _message(kind: int, flags: int, *attributes: bytes, family: int = NFPROTO_IPV4, resource: int = 0) -> bytes:
    body = struct.pack(">BBH", family, 0, resource) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | flags, 0, 0) + body


def _change(kind: int, flags: int, *attributes: bytes) -> bytes:
    return _message(NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_CREATE | flags, *attributes)


def table(name: str) -> bytes:
    """Make a table that is owned by the socket that sends this message."""
    return _change(NFT_MSG_NEWTABLE, NLM_F_ACK, attribute(1, name), attribute(2, NFT_TABLE_F_OWNER))


def chain(of: str, name: str, kind: str = "", hook: int = 0, priority: int = 0) -> bytes:
    """Make a chain. With a ``kind`` (nat or filter) the kernel sends packets through it at ``hook``."""
    base = (attribute(4, (attribute(1, hook), attribute(2, priority))), attribute(7, kind)) if kind else ()
    return _change(NFT_MSG_NEWCHAIN, 0, attribute(1, of), attribute(3, name), *base)


def rule(of: str, chain_name: str, *expressions: Iterable[bytes]) -> bytes:
    """Add a rule."""
    elements = tuple(each for group in expressions for each in group)
    return _change(NFT_MSG_NEWRULE, NLM_F_APPEND, attribute(1, of), attribute(2, chain_name), attribute(4, elements))


def send(messages: Iterable[bytes]) -> _socket.socket:
    """Run a transaction on a new socket, which then owns the tables that it made. The caller closes it.

    Raises:
        OSError: the kernel refuses, and nothing was changed.
    """
    begin = _message(NFNL_MSG_BATCH_BEGIN, 0, family=0, resource=NFNL_SUBSYS_NFTABLES)
    end = _message(NFNL_MSG_BATCH_END, 0, family=0, resource=NFNL_SUBSYS_NFTABLES)
    batch = b"".join((begin, *messages, end))
    owner = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        owner.setsockopt(_socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * len(batch) + 4096)
        owner.sendto(batch, (0, 0))
        while True:  # the kernel answers before sendto returns
            _raise_refusal(owner.recv(65536, _socket.MSG_DONTWAIT))
    except BlockingIOError:
        return owner
    except BaseException:
        owner.close()
        raise


def _raise_refusal(answer: bytes) -> None:
    kind, code = struct.unpack_from("=H", answer, 4)[0], struct.unpack_from("=i", answer, 16)[0]
    if kind == NLMSG_ERROR and code:
        raise OSError(-code, os.strerror(-code))


# ---- expressions: each is a list of attributes for `rule` --------------------------------------------


def _expression(name: str, *attributes: bytes) -> bytes:
    return attribute(1, (attribute(1, name), attribute(2, attributes)))


def _value(data: bytes) -> tuple[bytes, ...]:
    return (attribute(1, data),)


def _compare(data: bytes, how: int = EQUAL) -> bytes:
    return _expression("cmp", attribute(1, REGISTER), attribute(2, how), attribute(3, _value(data)))


def _payload(base: int, offset: int, length: int) -> bytes:
    numbers = (REGISTER, base, offset, length)
    return _expression("payload", *(attribute(kind, number) for kind, number in enumerate(numbers, 1)))


def _masked(mask: bytes) -> bytes:
    numbers = (attribute(1, REGISTER), attribute(2, REGISTER), attribute(3, len(mask)))
    return _expression("bitwise", *numbers, attribute(4, _value(mask)), attribute(5, _value(bytes(len(mask)))))


def _load(register: int, data: bytes) -> bytes:
    return _expression("immediate", attribute(1, register), attribute(2, _value(data)))


def _verdict(code: int, *target: bytes) -> list[bytes]:
    verdict = attribute(2, (attribute(1, code), *target))
    return [_expression("immediate", attribute(1, 0), attribute(2, (verdict,)))]


def to_this_host() -> list[bytes]:
    """Match packets to an address of this host: ``fib daddr type local``."""
    numbers = (attribute(1, REGISTER), attribute(2, FIB_ADDRTYPE), attribute(3, FIB_DADDR))
    return [_expression("fib", *numbers), _compare(struct.pack("=I", RTN_LOCAL))]


def not_by(interface: str) -> list[bytes]:
    """Match packets that came in through any other interface."""
    name = interface.encode().ljust(16, b"\0")
    return [_expression("meta", attribute(1, REGISTER), attribute(2, META_IIFNAME)), _compare(name, OTHER)]


def source_in(network: bytes, prefix_length: int) -> list[bytes]:
    """Match packets from a subnet."""
    return _address_in(12, network, prefix_length)


def destination_in(network: bytes, prefix_length: int = 32) -> list[bytes]:
    """Match packets to a subnet, or to a single address."""
    return _address_in(16, network, prefix_length)


def _address_in(offset: int, network: bytes, prefix_length: int) -> list[bytes]:
    mask = (0xFFFFFFFF << (32 - prefix_length) & 0xFFFFFFFF).to_bytes(4, "big")
    return [_payload(NETWORK_HEADER, offset, 4), _masked(mask), _compare(network)]


def to_port(protocol: int, port: int) -> list[bytes]:
    """Match packets of a transport protocol to a port."""
    return [
        _expression("meta", attribute(1, REGISTER), attribute(2, META_L4PROTO)),
        _compare(bytes((protocol,))),
        _payload(TRANSPORT_HEADER, 2, 2),
        _compare(port.to_bytes(2, "big")),
    ]


def was_redirected() -> list[bytes]:
    """Match packets of a connection whose destination was changed: ``ct status dnat``."""
    bit = struct.pack("=I", IPS_DST_NAT)
    return [_expression("ct", attribute(1, REGISTER), attribute(2, CT_STATUS)), _masked(bit), _compare(bytes(4), OTHER)]


def drop() -> list[bytes]:
    """Drop the packet."""
    return _verdict(NF_DROP)


def jump(to: str) -> list[bytes]:
    """Jump to another chain, and come back."""
    return _verdict(NFT_JUMP, attribute(2, to))


def redirect(address: bytes, port: int) -> list[bytes]:
    """Change the connection's destination: ``dnat to``."""
    numbers = (1, NFPROTO_IPV4, REGISTER, REGISTER, SECOND, SECOND)  # NFT_NAT_DNAT
    nat = _expression("nat", *(attribute(kind, number) for kind, number in enumerate(numbers, 1)))
    return [_load(REGISTER, address), _load(SECOND, port.to_bytes(2, "big")), nat]


def masquerade() -> list[bytes]:
    """Change the connection's source to this host's address."""
    return [_expression("masq")]
