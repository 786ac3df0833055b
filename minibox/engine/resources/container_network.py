"""A container's networks: which, the files that tell of them, their wiring and their end."""

from __future__ import annotations

import os

from minibox.base.codec import FileKind
from minibox.engine.process.undo import undo
from minibox.errors import NetworkError, NetworkNotFound, Unsupported, UsageError
from minibox.network import files, lease, members
from minibox.network.lease import mac_text, veth_name
from minibox.plan import parent
from minibox.plan.parent import undo_list
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from minibox.engine.spec.options import RunOptions
    from minibox.network.lease import Lease
    from minibox.network.named import NamedNetwork
    from minibox.network.published import Wanted
    from minibox.network.rootless import RootlessTool
    from minibox.plan.operations import Op

JOINED = "networks"  # in a container's directory, when `networks.connect` has changed what it is on
ALIAS_MAX = 253  # characters of a host name


def _joined_before(data: bytes) -> dict[str, Any]:
    rows = [line.split("\t") for line in data.decode().split("\n") if line]
    return {"Networks": [{"Name": name, "Aliases": aliases} for name, *aliases in rows]}


JOINED_NETWORKS = FileKind("networks", {"Networks": [{"Name": str, "Aliases": [str]}]}, before=_joined_before)


@record
class Network:
    """A choice.

    Attributes:
        mode: none, host, bridge, or the name of the rootless tool.
        note: what the user should know of it; "" for nothing.
        joined: for bridge, the networks and what it is called on each; None for the default one.
    """

    mode: str
    tool: RootlessTool | None = None
    note: str = ""
    joined: tuple[tuple[NamedNetwork | None, tuple[str, ...]], ...] = ()


def choose(options: RunOptions, euid: int, root: str, directory: str = "") -> Network:
    """The network that was asked for, or the default: a bridge for root, pasta or slirp4netns for others.

    Args:
        directory: the container's own: what it is on may have been changed.

    Raises:
        NetworkError: an ordinary user can't have it.
        NetworkNotFound: it is neither a mode nor a network.
    """
    mode = options.network
    if mode == "host":
        return Network(mode)
    changed = read_joined(directory) if directory else None
    if euid == 0 and (changed is not None or mode != "none"):
        wanted = [(mode, options.network_alias)] if changed is None else changed
        joined = tuple((_named(root, name), tuple(aliases)) for name, aliases in wanted)
        return Network("bridge" if joined else "none", joined=joined)
    if mode == "none":
        return Network(mode)
    if mode == "bridge":
        raise NetworkError("an ordinary user can't add links to a bridge", "leave out --network, or run as root")
    if mode:
        refuse_rootless(f"--network {mode}")
    from minibox.network.rootless import find_tool

    tool, note = find_tool()
    return Network(tool.name, tool) if tool else Network("none", note=note)


def refuse_rootless(what: str) -> None:
    """Say why an ordinary user has no networks with names, and what there is instead.

    Raises:
        Unsupported
    """
    raise Unsupported(
        f"{what} needs root: an ordinary user can't add a bridge, nor links to containers of different user namespaces",
        "run as root; or start the programs that talk to each other in one container, where they share its loopback",
    )


def _named(root: str, name: str) -> NamedNetwork | None:
    if name in ("", "bridge", "default"):
        return None
    from minibox.network.named import find

    try:
        return find(root, name)
    except NetworkNotFound as error:
        raise NetworkNotFound(str(error), "one of none, host, bridge, or of minibox network ls") from None


def read_joined(directory: str) -> list[tuple[str, tuple[str, ...]]] | None:
    """What a container is on by later change, each by name with its aliases; None when nothing was changed.

    Raises:
        Unreadable: that can't be told.
    """
    try:
        found = JOINED_NETWORKS.read(f"{directory}/{JOINED}")["Networks"]
    except FileNotFoundError:
        return None
    return [(each["Name"], tuple(each["Aliases"])) for each in found]


def write_joined(directory: str, joined: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Write down what a container is on, so that it is kept."""
    rows = [{"Name": name, "Aliases": list(aliases)} for name, aliases in joined]
    JOINED_NETWORKS.write(f"{directory}/{JOINED}", {"Networks": rows}, durable=True)


def check_aliases(aliases: Iterable[str], option: str = "--network-alias") -> None:
    """Refuse names that no container can have on a network.

    Raises:
        UsageError
    """
    for alias in aliases:
        if not files.is_name(alias) or len(alias) > ALIAS_MAX:
            raise UsageError(
                f"{option} {alias!r}: not a host name",
                f"1 to {ALIAS_MAX} letters, digits, dots, hyphens and underscores, the first no hyphen and no dot",
            )


def ports_to_publish(
    options: RunOptions, image_config: dict[str, Any], network: Network
) -> tuple[tuple[Wanted, ...], str]:
    """The ports that a container is to have published on a network, and a note where that can't be.

    Raises:
        UsageError: of the words that ask for them.
        Unsupported: the caller is an ordinary user.
    """
    if not (options.publish or options.publish_all):
        return (), ""
    from minibox.engine.spec.ports import wanted_ports

    wanted = wanted_ports(options, image_config)
    if network.mode == "host":
        return (), "published ports are discarded: the container is on the host's network"
    if network.mode == "pasta":
        return wanted, ""
    if os.geteuid() and options.network != "none":
        raise Unsupported(
            f"an ordinary user's ports are published by pasta: {network.note or 'there is slirp4netns alone'}",
            "apt install passt; or --network host, where the container has the host's own ports",
        )
    if network.joined and all(named and named.internal for named, _ in network.joined):
        return (), "published ports are discarded: an internal network has no way in"
    return wanted if network.joined else (), ""


class Connection:
    """The networks of one container: its addresses on them, the files that tell of them, and the steps of a start."""

    def __init__(self, network: Network, runroot: str, container_id: str, ports: Sequence[Wanted] = ()) -> None:
        """Take an address where addresses are handed out.

        Args:
            ports: that are to be published.

        Raises:
            NetworkError: none is free.
        """
        self.network = network
        self._ports = ports
        self._leases: list[Lease] = []
        try:
            for named, _ in network.joined:
                self._leases.append(_take(runroot, named, container_id))
        except BaseException:
            undo(undo_list(self.held))
            raise

    @classmethod
    def example(cls, network: Network, runroot: str, container_id: str, ports: Sequence[Wanted]) -> Connection:
        """As it might be, for `explain`: nothing is taken."""
        shown = cls(Network(network.mode, network.tool), runroot, container_id, ports)
        shown.network = network
        shown._leases = [_example(runroot, named, container_id) for named, _ in network.joined]
        return shown

    # ---- as steps -------------------------------------------------------------------------------

    @property
    def held(self) -> list[Op]:
        """The addresses that it has."""
        return [parent.hold_address(held.state, held.address, held.container_id) for held in self._leases]

    @property
    def reserved(self) -> list[Op]:
        """Take the ports of this host that are to be published."""
        return [
            parent.reserve_port(each.protocol, each.address, each.first, each.last, each.inside) for each in self._ports
        ]

    @property
    def wiring(self) -> list[Op]:
        """Give the network namespace of the container's first process its links."""
        steps: list[Op] = []
        if self._leases:
            for number, held in enumerate(self._leases):
                steps += parent.on_bridge(
                    held.bridge,
                    held.gateway,
                    held.subnet,
                    veth=veth_name(held),
                    interface=f"eth{number}",
                    address=held.address,
                    mac=mac_text(held.address),
                    internal=held.internal,
                )
        elif self.network.tool:
            from minibox.network.rootless import command

            argv = command(self.network.tool, "$INIT", 0, self._ports)
            steps.append(parent.user_network(self.network.tool.name, tuple(argv)))
        return steps

    def published(self, directory: str) -> list[Op]:
        """Lead the ports to the container, which is wired.

        Args:
            directory: the container's own.
        """
        if not self._ports:
            return []
        from minibox.engine.state.ports import FILE

        noted = parent.note_ports(f"{directory}/{FILE}")
        if not self._leases:
            return [noted]  # its tool leads them
        from minibox.network.published import table_name

        way_in = next(each for each in self._leases if not each.internal)
        ports = [(each.protocol, each.address, _only(each), each.inside) for each in self._ports]
        return [
            *parent.publish(table_name(way_in.container_id), way_in.bridge, way_in.address, way_in.subnet, ports),
            parent.hairpin(veth_name(way_in)),
            noted,
        ]

    # ---- its files ------------------------------------------------------------------------------

    @property
    def address(self) -> str | None:
        """IPv4 on the first of its networks, where addresses are handed out."""
        return self._leases[0].address if self._leases else None

    def texts(self, hostname: str, options: RunOptions) -> Mapping[str, str]:
        """The container's /etc/hosts, /etc/hostname and /etc/resolv.conf.

        Raises:
            UsageError: ``--add-host`` or ``--dns`` has a value that can't be meant.
        """
        tool, held = self.network.tool, self._leases[0] if self._leases else None
        address, gateway, dns = None, None, options.dns
        if held:
            address, gateway = held.address, held.gateway
        elif tool:
            from minibox.network.rootless import dns_for

            address, gateway, dns = tool.address, tool.host_gateway, dns_for(tool, dns)
        elif self.network.mode == "host":
            gateway = "127.0.0.1"
        host_text = files.host_resolv_conf()
        own = self.network.mode == "host"
        return {
            "/etc/hosts": files.hosts_text(hostname, address, options.add_host, gateway),
            "/etc/hostname": files.hostname_text(hostname),
            "/etc/resolv.conf": files.resolv_conf_text(host_text, dns, host_network=own, ipv6=not tool or tool.ipv6),
        }

    def announce(self, hosts_path: str, names: Sequence[str]) -> None:
        """Have the other members of its networks know it, and it them.

        Args:
            hosts_path: the file with the first of `texts`, which is written.
            names: what it is called on each of them.
        """
        for held, (named, aliases) in zip(self._leases, self.network.joined, strict=True):
            if named:
                members.join(held, hosts_path, (*names, *aliases))


def _only(wanted: Wanted) -> int:
    """The one port that is wanted; 0 where any of some will do."""
    return wanted.first if wanted.first == wanted.last else 0


def _example(runroot: str, network: NamedNetwork | None, container_id: str) -> Lease:
    if network is None:
        return lease.example(runroot, container_id)
    return lease.example(runroot, container_id, network.bridge, network.subnet)


def _take(runroot: str, network: NamedNetwork | None, container_id: str) -> Lease:
    if network is None:
        return lease.take(runroot, container_id)
    from minibox.network.named import take

    return take(runroot, network, container_id)
