"""Requests to rtnetlink(7): compiled once by pyroute2, kept as bytes, filled in and sent.

Importing pyroute2 takes 130 ms, ten times as long as a container's start. Its `IPBatch` is a compiler: it turns calls
into the bytes of netlink requests and sends nothing. For two containers these bytes differ only in a name, an index
and an address. So we compile them once after a boot, with a marker in each of these places, and keep them in the
runroot. A start reads them, replaces the markers and sends them. The numbers in them are the kernel's ABI and don't
change.
"""

from __future__ import annotations

import _socket
import _thread
import os
import struct

from minibox.base.cache import read_cache, write_cache
from minibox.base.files import AutoClose
from minibox.base.lock import Lock
from minibox.errors import suppress
from minibox.linux.process import set_network_namespace
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeVar

    T = TypeVar("T")

NETLINK_ROUTE = 0
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
NLMSG_ERROR, NLM_F_ACK_TLVS, NLMSGERR_ATTR_MSG = 2, 0x200, 1
TYPE_MASK = 0x3FFF  # without the flags of an attribute's type
ANSWER_WITHIN_S = 10

# The markers: the values that stand for the fields in a compiled request. Each field has a fixed width.
_NAME, _PEER = "mb-marked-name0", "mb-marked-peer0"  # 15 characters and a NUL: IFNAMSIZ
_MARKS = {
    "name": _NAME.encode() + b"\0",
    "peer": _PEER.encode() + b"\0",
    "mtu": struct.pack("=I", 0x7A7A7A71),
    "bridge_index": struct.pack("=I", 0x7A7A7A72),
    "netns_fd": struct.pack("=I", 0x7A7A7A73),
    "index": struct.pack("=I", 0x7A7A7A74),
    "mac": bytes.fromhex("026d7a7a7a7a"),
    "address": _socket.inet_aton("203.0.113.122"),
    "broadcast": _socket.inet_aton("203.0.113.123"),
    "gateway": _socket.inet_aton("203.0.113.124"),
    "prefix_length": b"\xa7",
}


@record
class Request:
    """A compiled request: its bytes, and where each field's value goes."""

    message: bytes
    places: tuple[tuple[str, int], ...]

    def fill(self, values: Mapping[str, bytes]) -> bytearray:
        """Return the request with ``values`` filled in; KeyError if one is missing."""
        message = bytearray(self.message)
        for field, offset in self.places:
            value = values[field]
            message[offset : offset + len(value)] = value
        return message


def name(interface: str) -> bytes:
    """Encode an interface's name for a request."""
    return interface.encode().ljust(16, b"\0")


def number(value: int) -> bytes:
    """Encode an index, a descriptor or an MTU for a request."""
    return struct.pack("=I", value)


def compile_requests() -> dict[str, Request]:
    """Compile all our requests with pyroute2. Importing it takes 130 ms.

    This runs in a thread of its own: pyroute2 runs an event loop, and the caller's thread may be running one already.
    """
    return in_thread(_compile_requests)


def _compile_requests() -> dict[str, Request]:
    from pyroute2 import IPBatch

    index, mtu, mac = 0x7A7A7A74, 0x7A7A7A71, "02:6d:7a:7a:7a:7a"
    found = {}
    with IPBatch() as compiler:

        def compiled(key: str) -> None:
            found[key] = marked(bytes(compiler.batch))
            compiler.reset()

        compiler.link("add", ifname=_NAME, kind="bridge", address=mac, mtu=mtu, state="up")
        compiled("add bridge")
        compiler.link("set", index=index, state="up")
        compiled("set up")
        compiler.link("del", index=index)
        compiled("delete link")
        compiler.addr("add", index=index, address="203.0.113.122", prefixlen=0xA7, broadcast="203.0.113.123")
        compiled("add address")
        compiler.route("add", dst="default", gateway="203.0.113.124")
        compiled("add default route")
        peer = {"ifname": _PEER, "net_ns_fd": 0x7A7A7A73, "address": mac, "mtu": mtu}
        compiler.link("add", ifname=_NAME, kind="veth", master=0x7A7A7A72, mtu=mtu, state="up", peer=peer)
        compiled("add veth")
        compiler.brport("set", index=index, mode=1)
        compiled("reflect")
    return found


def marked(message: bytes) -> Request:
    """Find the markers in a compiled message, and return it as a request.

    Clear the sequence number and the port id, bytes 8 to 16 of struct nlmsghdr: `Link.send` sets them, and the
    process id that pyroute2 put there could look like a marker.
    """
    message = message[:8] + bytes(8) + message[16:]
    return Request(message, tuple(_places(message)))


def _places(message: bytes) -> list[tuple[str, int]]:
    """Return the markers in a message as (field, offset), in the order of their offsets."""
    found = []
    for field, mark in _MARKS.items():
        offset = message.find(mark)
        while offset >= 0:
            found.append((field, offset))
            offset = message.find(mark, offset + len(mark))
    return sorted(found, key=lambda place: place[1])


def requests(directory: str) -> dict[str, Request]:
    """Return the compiled requests, cached in ``directory`` for as long as this module doesn't change."""
    path = f"{directory}/requests"
    edition = os.stat(__file__).st_mtime_ns
    if kept := read_cache(path, edition):
        return _requests(kept)
    with Lock(directory):  # if several first starts run at once, one compiles
        if kept := read_cache(path, edition):
            return _requests(kept)
        compiled = compile_requests()
        write_cache(path, edition, {key: (request.message, request.places) for key, request in compiled.items()})
        return compiled


def _requests(kept: dict[str, tuple[bytes, tuple[tuple[str, int], ...]]]) -> dict[str, Request]:
    return {key: Request(*value) for key, value in kept.items()}


class Link(AutoClose):
    """A socket to rtnetlink, in the network namespace in which it was opened."""

    def __init__(self) -> None:
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._sequence = 0
        for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK):
            with suppress(OSError):  # before Linux 4.12 and 4.3: answers have no message
                self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, struct.pack("@ll", ANSWER_WITHIN_S, 0))

    def send(self, *messages: bytearray) -> list[OSError | None]:
        """Send requests in one datagram. Return the kernel's answer to each, in order: None, or an error.

        Raises:
            OSError: the socket itself failed, or no answer came within 10 s.
        """
        expected: dict[int, int] = {}
        for position, message in enumerate(messages):
            self._sequence += 1
            struct.pack_into("=II", message, 8, self._sequence, 0)
            expected[self._sequence] = position
        self._socket.sendto(b"".join(messages), (0, 0))
        answers: list[OSError | None] = [None] * len(messages)
        while expected:
            for sequence, answer in _answers(self._socket.recv(65536)):
                if sequence in expected:
                    answers[expected.pop(sequence)] = answer
        return answers

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _answers(datagram: bytes) -> list[tuple[int, OSError | None]]:
    """Return the (sequence number, error or None) of each NLMSG_ERROR in a datagram."""
    found: list[tuple[int, OSError | None]] = []
    offset = 0
    while offset + 16 <= len(datagram):
        length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", datagram, offset)
        if length < 16:
            break
        if kind == NLMSG_ERROR:
            code = -struct.unpack_from("=i", datagram, offset + 16)[0]
            words = _words(datagram[offset + 36 : offset + length]) if flags & NLM_F_ACK_TLVS else ""
            refusal = OSError(code, words or os.strerror(code)) if code else None
            found.append((sequence, refusal))
        offset += (length + 3) & ~3
    return found


def _words(attributes: bytes) -> str:
    """Return the kernel's message about an error (NLMSGERR_ATTR_MSG); "" if it sent none."""
    for kind, _, value in attributes_in(attributes):
        if kind == NLMSGERR_ATTR_MSG:
            return value.rstrip(b"\0").decode(errors="replace")
    return ""


def attributes_in(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (type, whole attribute, value) of each attribute in a message of the kernel's."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & TYPE_MASK, data[offset : offset + (length + 3 & ~3)], data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def in_netns(netns_fd: int, act: Callable[[], T]) -> T:
    """Run ``act`` in a network namespace, in a new thread, and wait for it.

    setns(2) with CLONE_NEWNET moves only the calling thread. A new thread never has to move back, whatever else the
    embedding process does meanwhile. A socket that it opens stays in that namespace.
    """

    def enter() -> T:
        set_network_namespace(netns_fd)
        return act()

    return in_thread(enter)


def in_thread(act: Callable[[], T]) -> T:
    """Run ``act`` in a new thread, wait for it, and return its result or raise its exception."""
    done = _thread.allocate_lock()
    done.acquire()
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((act(), None))
        except BaseException as error:  # raised again in the caller
            outcome.append((None, error))
        finally:
            done.release()

    _thread.start_new_thread(run, ())
    done.acquire()
    result: T
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def refused(answer: OSError | None, *expected: int) -> OSError | None:
    """Return the error, or None if its number is one of ``expected`` (EEXIST: somebody did it already)."""
    return None if answer is None or answer.errno in expected else answer
