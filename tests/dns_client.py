"""A client of the DNS that sends what a test wants, from within a container's network; and a server to be asked."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from minibox.network.rtnetlink import in_netns

SERVER = ("127.0.0.11", 53)
TYPES = {"A": 1, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "HTTPS": 65, "ANY": 255}
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
WAIT_S = 15.0


@dataclass
class Reply:
    """What a server has answered; addresses and names as text."""

    rcode: int
    truncated: bool
    records: list[str] = field(default_factory=list)
    ttl_s: set[int] = field(default_factory=set)
    edns: bool = False


def query(name: str, kind: str = "A", *, edns: int = 0, number: int = 4711) -> bytes:
    """A query; ``edns`` is the size of an answer that its sender takes, 0 without EDNS."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    opt = struct.pack("!BHHIH", 0, 41, edns, 0, 0) if edns else b""
    head = struct.pack("!6H", number, 0x0100, 1, 0, 0, 1 if edns else 0)
    return head + labels + b"\0" + struct.pack("!HH", TYPES[kind], 1) + opt


def _name(data: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    while length := data[at]:
        if length >= 0xC0:
            rest, _ = _name(data, (length & 0x3F) << 8 | data[at + 1])
            return ".".join([*labels, rest]), at + 2
        labels.append(data[at + 1 : at + 1 + length].decode(errors="replace"))
        at += 1 + length
    return ".".join(labels), at + 1


def parse(data: bytes, number: int = 4711) -> Reply:
    found, flags, questions, answers, others, more = struct.unpack_from("!6H", data)
    assert (found, flags >> 15) == (number, 1)
    reply, at = Reply(flags & 15, bool(flags & 0x200)), 12
    for _ in range(questions):
        at = _name(data, at)[1] + 4
    for _ in range(answers + others + more):
        at = _name(data, at)[1]
        kind, _, ttl, size = struct.unpack_from("!HHIH", data, at)
        value, at = data[at + 10 : at + 10 + size], at + 10 + size
        if kind == TYPES["A"]:
            reply.records.append(socket.inet_ntoa(value))
        elif kind == TYPES["PTR"]:
            reply.records.append(_name(data, at - size)[0])
        if kind == 41:
            reply.edns = True
        else:
            reply.ttl_s.add(ttl)
    assert at == len(data)
    return reply


def exchange(message: bytes, *, tcp: bool = False) -> bytes:
    """Send a message to the server, and return its answer."""
    if not tcp:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(WAIT_S)
            client.connect(SERVER)
            client.send(message)
            return client.recv(65535)
    with socket.create_connection(SERVER, timeout=WAIT_S) as client:
        client.sendall(len(message).to_bytes(2, "big") + message)
        with client.makefile("rb") as stream:
            return stream.read(int.from_bytes(stream.read(2), "big"))


@contextmanager
def network_of(pid: int) -> Iterator[int]:
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def ask(pid: int, name: str, kind: str = "A", *, tcp: bool = False, edns: int = 0) -> Reply:
    """Ask the name server of a container, by its first process."""
    with network_of(pid) as netns:
        return parse(in_netns(netns, lambda: exchange(query(name, kind, edns=edns), tcp=tcp)))


class Upstream:
    """A name server: ``www.example`` is 192.0.2.80, ``all.example`` has 200 addresses; of others it knows nothing.

    Attributes:
        asked: the names, in order, each with ``udp`` or ``tcp``.
        rcode: what it answers to all that it knows.
    """

    def __init__(self, address: str) -> None:
        self.asked: list[tuple[str, str]] = []
        self.rcode = NOERROR
        self.address = address
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, 53))
        self._tcp = socket.create_server((address, 53))
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._serve_udp, self._serve_tcp)]
        for each in self._threads:
            each.start()

    def _answer(self, message: bytes, limit: int, by: str) -> bytes:
        name, end = _name(message, 12)
        self.asked.append((name, by))
        count = {"www.example": 1, "all.example": 200}.get(name, 0)
        if message[end : end + 2] != b"\0\x01":
            count = 0
        rcode = NXDOMAIN if name not in ("www.example", "all.example") else self.rcode
        count = 0 if rcode else count
        records = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes([192, 0, 2, 80 + i % 100])
                           for i in range(count))  # fmt: skip
        truncated = len(records) + end + 4 > limit
        flags = 0x8180 | rcode | (0x200 if truncated else 0)
        head = message[:2] + struct.pack("!5H", flags, 1, 0 if truncated else count, 0, 0)
        return head + message[12 : end + 4] + (b"" if truncated else records)

    def _serve_udp(self) -> None:
        while True:
            message, sender = self._udp.recvfrom(65535)
            if not message:  # from `close`
                return
            limit = int.from_bytes(message[-8:-6], "big") if message[11] else 512
            self._udp.sendto(self._answer(message, limit, "udp"), sender)

    def _serve_tcp(self) -> None:
        while True:
            client, _ = self._tcp.accept()
            with client, client.makefile("rb") as stream:
                message = stream.read(int.from_bytes(stream.read(2), "big"))
                if not message:
                    return
                answer = self._answer(message, 65535, "tcp")
                client.sendall(len(answer).to_bytes(2, "big") + answer)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"", (self.address, 53))
        socket.create_connection((self.address, 53)).close()
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()
