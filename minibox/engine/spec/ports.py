"""The ports of a container: published, and exposed."""

from __future__ import annotations

from minibox.config import load
from minibox.docker_words.ports import Port, ports_of
from minibox.errors import UsageError
from minibox.network.ipv4 import is_ipv4
from minibox.network.published import ANY_ADDRESS, Wanted
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from minibox.engine.spec.options import RunOptions


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
    """
    default = options.publish_address or ANY_ADDRESS
    found = [replace(each, address=each.address or default) for given in options.publish for each in given.ports]
    if options.publish_all:
        named = {(each.inside, each.protocol) for each in found}
        free = sorted(exposed_ports(options, config) - named)
        found += [Wanted(default, 0, 0, port, protocol) for port, protocol in free]
    return tuple(found)


def exposed_ports(options: RunOptions, config: dict[str, Any]) -> set[Port]:
    """Return the ports that the image and ``--expose`` name."""
    return {*ports_of(config.get("ExposedPorts")), *(port for each in options.expose for port in each.ports())}
