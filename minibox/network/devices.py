"""Move the host's network devices into a container's network namespace: `linux.netDevices` of a Spec.

A device keeps its MAC address and its MTU. We give it its addresses of global scope again, and set it up. When the
namespace ends, the kernel moves a physical device back to the host, and removes any other.
"""

from __future__ import annotations

import _socket
import os
from errno import ENODEV
from functools import partial

from minibox.base.files import closing
from minibox.errors import NetworkError, on_failure, suppress, trying
from minibox.network import rtnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RT_SCOPE_UNIVERSE = 0
IFA_F_PERMANENT = 0x80  # unlike one from DHCP or a router's advertisement, which nobody would renew inside
KEPT = ("local", "address", "broadcast")


def move(device: str, name: str, netns: str) -> None:
    """Move a device from our network namespace to another.

    Args:
        name: its name there.
        netns: path of the other namespace.

    Raises:
        NetworkError: the device isn't here, the name is taken there, or the kernel refuses.
    """
    what = f"move the network device {device}"
    with trying(NetworkError, f"move {device} to {netns}"):
        there = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    with closing(there), trying(NetworkError, what):
        # Check first: the kernel moves the device before it notices that it can't rename it.
        if name in {each for _, each in rtnetlink.in_netns(there, _socket.if_nameindex)}:
            raise NetworkError(f"{what}: the container's network namespace has a {name}")
        addresses = rtnetlink.in_thread(lambda: _take(device, there, name))
        with on_failure(_return, device, name, there):
            rtnetlink.in_netns(there, lambda: _give(name, addresses))


def move_back(device: str, name: str, netns: str) -> None:
    """Move a device back if possible: it may be gone with its namespace."""
    try:
        there = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    with closing(there):
        _return(device, name, there)


def _return(device: str, name: str, there: int) -> None:
    # it went with its namespace, or its name is taken here by now
    with closing(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as here, suppress(OSError):
        addresses = rtnetlink.in_netns(there, partial(_take, name, here, device))
        rtnetlink.in_thread(partial(_give, device, addresses))


def _take(here: str, there_fd: int, there: str) -> list[dict[str, Any]]:
    """Move the device ``here`` to another namespace as ``there``; return the addresses that it had."""
    index = _index(here)
    with _netlink() as link:
        addresses = [
            {"prefixlen": each["prefixlen"], "family": each["family"], **_attributes(each)}
            for each in link.get_addr(index=index)
            if each["scope"] == RT_SCOPE_UNIVERSE and each["flags"] & IFA_F_PERMANENT
        ]
        _ask(link.link, "set", index=index, net_ns_fd=there_fd, ifname=there)
    return addresses


def _give(there: str, addresses: list[dict[str, Any]]) -> None:
    index = _index(there)
    with _netlink() as link:
        for address in addresses:
            _ask(link.addr, "add", index=index, **address)
        _ask(link.link, "set", index=index, state="up")


def _index(name: str) -> int:
    try:
        return _socket.if_nametoindex(name)
    except OSError:  # has no errno before Python 3.13
        raise OSError(ENODEV, os.strerror(ENODEV)) from None


def _attributes(address: Any) -> dict[str, Any]:
    found = {name: address.get_attr(f"IFA_{name.upper()}") for name in KEPT}
    return {name: value for name, value in found.items() if value is not None}


def _netlink() -> Any:
    from pyroute2 import IPRoute

    return IPRoute()


def _ask(method: Any, *words: str, **fields: Any) -> None:
    """Call a method of pyroute2, and turn its error into an OSError."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        method(*words, **fields)
    except NetlinkError as error:
        raise OSError(error.code, str(error)) from error
