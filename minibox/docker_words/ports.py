"""``--publish``, ``--expose`` and ports in filters, in Docker's syntax.

Source: https://docs.docker.com/reference/cli/docker/container/run/#publish.
"""

from __future__ import annotations

from minibox.errors import UsageError
from minibox.network.ipv4 import is_ipv4, is_ipv6
from minibox.network.published import PROTOCOLS, Wanted
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SYNTAX = "[address:][host port:]container port[/tcp|udp], each port a number or a range: 8080:80, 127.0.0.1:5000-5009:5000-5009"
LONG = {"published": "", "target": "", "protocol": "tcp", "mode": ""}  # published=8080,target=80,protocol=tcp

Port = tuple[int, str]


@record
class Publish:
    """Ports to publish.

    Attributes:
        ports: an address of "" means the default.
        word: what the user wrote; "" if it wasn't a word.
    """

    ports: tuple[Wanted, ...]
    word: str = ""

    def __str__(self) -> str:
        return self.word or ", ".join(map(str, self.ports))


def parse_publish(word: str) -> Publish:
    """Parse one ``--publish``.

    Raises:
        UsageError: the word is invalid.
    """
    rest, protocol = _split_protocol(_shorten(word), word)
    outside, _, inside = rest.rpartition(":")
    if not inside:
        raise UsageError(f"no port specified: {word}<empty>", SYNTAX)
    return Publish(_ports(outside, inside, protocol), word)


def publish(inside: int | str, outside: int | str) -> Publish:
    """Publish a port of the container, such as 80 or ``53/udp``, at one of the host, such as 8080 or ``127.0.0.1:53``.

    Raises:
        UsageError: one of them is invalid.
    """
    port, protocol = _split_protocol(str(inside), f"{outside}:{inside}")
    return Publish(_ports(str(outside), port, protocol))


def _ports(outside: str, inside: str, protocol: str) -> tuple[Wanted, ...]:
    """Return the ports for ``[address:][port]`` of the host and a port of the container; a range gives one entry a port."""
    address, colon, outside_port = outside.rpartition(":")
    if address and not is_ipv4(address):
        if is_ipv6(address.removeprefix("[").removesuffix("]")):
            raise UsageError(
                f"publish {outside}:{inside}: containers have IPv4 addresses only", "give an IPv4 address of this host"
            )
        raise UsageError(f"invalid IP address: {address}", SYNTAX)
    first, last = _range(inside, "containerPort")
    if not outside_port:
        return tuple(Wanted(address, 0, 0, port, protocol) for port in range(first, last + 1))
    host_first, host_last = _range(outside_port, "hostPort", least=0)
    if first == last:
        return (Wanted(address, host_first, host_last, first, protocol),)
    if last - first != host_last - host_first:
        raise UsageError(
            f"invalid ranges specified for container and host Ports: {inside} and {outside_port}",
            "both ranges must have the same length",
        )
    shift = host_first - first
    return tuple(Wanted(address, port + shift, port + shift, port, protocol) for port in range(first, last + 1))


@record
class Exposed:
    """A range of ports that the container listens on.

    Attributes:
        word: what the user wrote.
    """

    first: int
    last: int
    protocol: str
    word: str

    def __str__(self) -> str:
        return self.word

    def ports(self) -> Iterable[Port]:
        """Return each port of the range."""
        return ((port, self.protocol) for port in range(self.first, self.last + 1))


def parse_expose(word: str) -> Exposed:
    """Parse one ``--expose``.

    Raises:
        UsageError: the word is invalid.
    """
    rest, protocol = _split_protocol(word, word)
    if ":" in rest:
        raise UsageError(f"invalid port format for --expose: {word}", "80, 53/udp, or 8000-8010")
    return Exposed(*_range(rest, "range format for --expose"), protocol, word)


def ports_of(exposed: object) -> list[Port]:
    """Return the ports of an image's ``ExposedPorts``; invalid ones are left out."""
    if not isinstance(exposed, dict):
        return []
    words = (str(each).partition("/") for each in exposed)
    return [(int(number), protocol or "tcp") for number, _, protocol in words if number.isdecimal()]


def parse_port(word: str) -> set[Port]:
    """Parse a port or a range in a filter or a command: ``80``, ``80/udp``, ``8000-8010/tcp``.

    Raises:
        UsageError: the word is invalid.
    """
    rest, protocol = _split_protocol(word, word)
    first, last = _range(rest, "port")
    return {(port, protocol) for port in range(first, last + 1)}


def bindings(words: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """Return ``--publish`` as HostConfig.PortBindings of Docker's ContainerInspect."""
    found: dict[str, list[dict[str, str]]] = {}
    for word in words:
        for each in parse_publish(word).ports:
            port = f"{each.first}-{each.last}" if each.last > each.first else str(each.first or "")
            binding = {"HostIp": each.address, "HostPort": port}
            found.setdefault(f"{each.inside}/{each.protocol}", []).append(binding)
    return found


def _shorten(word: str) -> str:
    """Turn the long form ``published=8080,target=80`` into the short one."""
    if "=" not in word:
        return word
    given = dict(LONG)
    for part in word.split(","):
        key, equals, value = part.partition("=")
        if not equals or key not in LONG:
            raise UsageError(f"invalid publish opts format (should be name=value but got {part!r})", SYNTAX)
        given[key] = value
    published = f"{given['published']}:" if given["published"] else ""
    return f"{published}{given['target']}/{given['protocol']}"


def _split_protocol(word: str, whole: str) -> tuple[str, str]:
    if not whole.isprintable():
        raise UsageError(f"invalid port {whole!r}", SYNTAX)
    rest, _, protocol = word.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise UsageError(f"invalid proto: {protocol}", f"tcp or udp: {whole.partition('/')[0]}/tcp")
    return rest, protocol


def _range(word: str, what: str, least: int = 1) -> tuple[int, int]:
    first, dash, last = word.partition("-")
    last = last if dash else first
    if not all(each.isascii() and each.isdecimal() and least <= int(each) < 1 << 16 for each in (first, last)):
        raise UsageError(f"invalid {what}: {word}", SYNTAX)
    if int(last) < int(first):
        raise UsageError(f"invalid {what}: {word}", "write the smaller number first")
    return int(first), int(last)
