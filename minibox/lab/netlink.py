"""The links, addresses and routes of the network namespace that one is in, by rtnetlink(7)."""

from __future__ import annotations

import socket
import struct
from time import sleep

from minibox.errors import suppress
from minibox.network.rtnetlink import attributes_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

NETLINK_ROUTE, RECEIVE_BYTES = 0, 1 << 17
RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE = 18, 22, 26
NLM_F_REQUEST, NLM_F_DUMP, NLMSG_ERROR, NLMSG_DONE = 1, 0x300, 2, 3
HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
LINK, ADDRESS, ROUTE = struct.Struct("=BxHiII"), struct.Struct("=BBBBi"), struct.Struct("=BBBBBBBBI")
IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_INFO_KIND = 3, 10, 18, 1
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
RT_TABLE_MAIN, IFF_UP = 254, 1


def tables() -> dict[str, Any]:
    """Return the links by name, each with ``kind``, ``master``, ``up`` and IPv4 ``addresses`` with their prefix length; and the
    IPv4 ``routes`` of the main table, as (destination, gateway, link).
    """
    names: dict[int, str] = {}
    links: dict[str, dict[str, Any]] = {}
    masters: dict[str, int] = {}
    for body in _dump(RTM_GETLINK, LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        _, _, index, flags, _ = LINK.unpack_from(body)
        found = _attributes(body[LINK.size :])
        name = found[IFLA_IFNAME].rstrip(b"\0").decode()
        kind = _attributes(found.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
        names[index] = name
        masters[name] = int.from_bytes(found.get(IFLA_MASTER, b""), "little")
        links[name] = {"kind": kind, "up": bool(flags & IFF_UP), "addresses": []}
    for name, link in links.items():
        link["master"] = names.get(masters[name], "")
    for body in _dump(RTM_GETADDR, ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
        _, length, _, _, index = ADDRESS.unpack_from(body)
        found = _attributes(body[ADDRESS.size :])
        address = socket.inet_ntoa(found.get(IFA_LOCAL) or found[IFA_ADDRESS])
        links[names[index]]["addresses"].append(f"{address}/{length}")
    routes = []
    for body in _dump(RTM_GETROUTE, ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        _, length, _, _, table, _, _, _, _ = ROUTE.unpack_from(body)
        if table == RT_TABLE_MAIN:
            found = _attributes(body[ROUTE.size :])
            to = f"{socket.inet_ntoa(found[RTA_DST])}/{length}" if RTA_DST in found else "default"
            gateway = socket.inet_ntoa(found[RTA_GATEWAY]) if RTA_GATEWAY in found else ""
            routes.append((to, gateway, names.get(int.from_bytes(found.get(RTA_OIF, b""), "little"), "")))
    return {"links": links, "routes": routes}


PORT, PACKETS, PAUSE_S, RECEIVE_S = 9, 20, 0.1, 60


def send(address: str) -> None:
    """Send packets for two seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        for _ in range(PACKETS):
            with suppress(OSError):  # no route; or the one before was refused, as nobody listened
                sender.sendto(b"minibox", (address, PORT))
            sleep(PAUSE_S)


def receive(address: str) -> str:
    """Wait for a packet of `send`. Return the address that it came from, "" if none came."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as receiver:
        receiver.settimeout(RECEIVE_S)
        try:
            receiver.bind((address, PORT))
            print("bound", flush=True)
            _, (source, _) = receiver.recvfrom(RECEIVE_BYTES)
        except OSError:  # no such address there; or nothing came
            return ""
        return str(source)


def _dump(kind: int, body: bytes) -> Iterator[bytes]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE) as link:
        link.send(HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + body)
        while True:
            data = link.recv(RECEIVE_BYTES)
            while data:
                size, answer, _, _, _ = HEADER.unpack_from(data)
                if answer in (NLMSG_DONE, NLMSG_ERROR):
                    return
                yield data[HEADER.size : size]
                data = data[size + 3 & ~3 :]


def _attributes(data: bytes) -> dict[int, bytes]:
    return {kind: value for kind, _, value in attributes_in(data)}
