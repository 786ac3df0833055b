"""Move the host's network devices into a container's network namespace: `linux.netDevices` of a Spec.

A device keeps its MAC address and its MTU. We give it its addresses of global scope again, and set it up. When the
namespace ends, the kernel moves a physical device back to the host, and removes any other.
"""

from __future__ import annotations

import _socket
import os
from errno import ENODEV
from functools import partial

from minibox.errors import NetworkError, kernel_says
from minibox.network import rtnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

RT_SCOPE_UNIVERSE = 0
IFA_F_PERMANENT = 0x80  # unlike one from DHCP or a router's advertisement, which nobody would renew inside
KEPT = ("local", "address", "broadcast")


class Moved:
    """Devices that were moved from our network namespace to another, and can be moved back."""

    def __init__(self, names: Mapping[str, str], netns: str) -> None:
        """Move them: all or none.

        Args:
            names: each device's name here and in the other namespace.
            netns: path of the other namespace.

        Raises:
            NetworkError: a device isn't here, its name is taken there, or the kernel refuses.
        """
        self._done: dict[str, str] = {}
        self._here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._there = -1
        try:
            self._there = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
            for here, there in names.items():
                self._move(here, there)
        except BaseException as error:
            self.back()
            if isinstance(error, OSError):
                raise NetworkError(f"move {', '.join(names)} to {netns}: {kernel_says(error)}") from error
            raise

    def _move(self, here: str, there: str) -> None:
        trying = f"move the network device {here}"
        # Check first: the kernel moves the device before it notices that it can't rename it.
        if there in {name for _, name in rtnetlink.in_netns(self._there, _socket.if_nameindex)}:
            raise NetworkError(f"{trying}: the container's network namespace has a {there}")
        try:
            addresses = rtnetlink.in_thread(lambda: _take(here, self._there, there))
            self._done[here] = there
            rtnetlink.in_netns(self._there, lambda: _give(there, addresses))
        except OSError as error:
            raise NetworkError(f"{trying}: {kernel_says(error)}") from error

    def back(self) -> None:
        """Move the devices back, as far as possible."""
        for here, there in self._done.items():
            try:
                addresses = rtnetlink.in_netns(self._there, partial(_take, there, self._here, here))
                rtnetlink.in_thread(partial(_give, here, addresses))
            except OSError:
                continue  # it went with its namespace, or its name is taken here by now
        self._done = {}
        self.close()

    def close(self) -> None:
        """Leave the devices where they are, and close the namespaces."""
        for fd in (self._here, self._there):
            if fd >= 0:
                os.close(fd)
        self._here = self._there = -1


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
