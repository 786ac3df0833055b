"""``--publish`` and ``--expose``, in Docker's syntax.

Source: https://docs.docker.com/reference/cli/docker/container/run/#publish.
"""

from __future__ import annotations

from minibox.config import load
from minibox.errors import UsageError
from minibox.network.ipv4 import is_ipv4, is_ipv6
from minibox.network.published import ANY_ADDRESS, PROTOCOLS, Wanted
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from minibox.engine.spec.options import RunOptions

SYNTAX = "[address:][host port:]container port[/tcp|udp], each port a number or a range: 8080:80, 127.0.0.1:5000-5009:5000-5009"
LONG = {"published": "", "target": "", "protocol": "tcp", "mode": ""}  # published=8080,target=80,protocol=tcp

Port = tuple[int, str]


def with_publish_address(options: RunOptions, environ: Mapping[str, str]) -> RunOptions:
    """Fill in ``publish_address``, the address of ports published without one, from the environment or config.toml.

    Raises:
        ConfigError: config.toml is invalid.
        UsageError: not an IPv4 address.
    """
    address = options.publish_address or environ.get("MINIBOX_PUBLISH_ADDRESS") or load(environ).publish_address
    if address and not is_ipv4(address):
        raise UsageError(
            f"publish_address {address!r} is not an IPv4 address",
            "set MINIBOX_PUBLISH_ADDRESS or config.toml to an address such as 127.0.0.1",
        )
    return replace(options, publish_address=address)


def wanted_ports(options: RunOptions, config: dict[str, Any]) -> tuple[Wanted, ...]:
    """Return the ports to publish, in the order of the options.

    Args:
        config: the image's, from `checked_config`.

    Raises:
        UsageError: an invalid ``--publish`` or ``--expose``.
    """
    default = options.publish_address or ANY_ADDRESS
    found = [each for word in options.publish for each in parse_publish(word, default)]
    if options.publish_all:
        named = {(each.inside, each.protocol) for each in found}
        free = sorted(exposed_ports(options, config) - named)
        found += [Wanted(default, 0, 0, port, protocol) for port, protocol in free]
    return tuple(found)


def exposed_ports(options: RunOptions, config: dict[str, Any]) -> set[Port]:
    """Return the ports that the image and ``--expose`` name.

    Raises:
        UsageError: an invalid ``--expose``.
    """
    return {*ports_of(config.get("ExposedPorts")), *(port for word in options.expose for port in parse_expose(word))}


def ports_of(exposed: object) -> list[Port]:
    """Return the ports of an image's ``ExposedPorts``; invalid ones are left out."""
    if not isinstance(exposed, dict):
        return []
    words = (str(each).partition("/") for each in exposed)
    return [(int(number), protocol or "tcp") for number, _, protocol in words if number.isdecimal()]


def parse_publish(word: str, default_address: str) -> list[Wanted]:
    """Parse one ``--publish``; a range gives one entry a port.

    Args:
        default_address: an address of this host, used if the word has none.

    Raises:
        UsageError: the word is invalid.
    """
    rest, protocol = _split_protocol(_shorten(word), word)
    before, _, inside = rest.rpartition(":")
    address, colon, outside = before.rpartition(":")
    if not colon:
        address, outside = "", before
    address = address or default_address
    if not is_ipv4(address):
        if is_ipv6(address.removeprefix("[").removesuffix("]")):
            raise UsageError(
                f"publish {word}: containers have IPv4 addresses only", "give an IPv4 address of this host"
            )
        raise UsageError(f"invalid IP address: {address}", SYNTAX)
    if not inside:
        raise UsageError(f"no port specified: {word}<empty>", SYNTAX)
    first, last = _range(inside, "containerPort")
    if not outside:
        return [Wanted(address, 0, 0, port, protocol) for port in range(first, last + 1)]
    host_first, host_last = _range(outside, "hostPort", least=0)
    if first == last:
        return [Wanted(address, host_first, host_last, first, protocol)]
    if last - first != host_last - host_first:
        raise UsageError(
            f"invalid ranges specified for container and host Ports: {inside} and {outside}",
            "both ranges must have the same length",
        )
    shift = host_first - first
    return [Wanted(address, port + shift, port + shift, port, protocol) for port in range(first, last + 1)]


def parse_expose(word: str) -> Iterable[Port]:
    """Parse one ``--expose``.

    Raises:
        UsageError: the word is invalid.
    """
    rest, protocol = _split_protocol(word, word)
    if ":" in rest:
        raise UsageError(f"invalid port format for --expose: {word}", "80, 53/udp, or 8000-8010")
    first, last = _range(rest, "range format for --expose")
    return ((port, protocol) for port in range(first, last + 1))


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
        for each in parse_publish(word, ANY_ADDRESS):
            port = f"{each.first}-{each.last}" if each.last > each.first else str(each.first or "")
            named = _shorten(word).partition("/")[0].count(":") > 1
            binding = {"HostIp": each.address if named else "", "HostPort": port}
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
            raise UsageError(f"invalid publish opts format (should be name=value but got '{part}')", SYNTAX)
        given[key] = value
    published = f"{given['published']}:" if given["published"] else ""
    return f"{published}{given['target']}/{given['protocol']}"


def _split_protocol(word: str, whole: str) -> tuple[str, str]:
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
