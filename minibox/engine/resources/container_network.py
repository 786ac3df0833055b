"""A container's networks: which ones, its /etc/hosts and the like, how it is wired, and how that is undone."""

from __future__ import annotations

import os

from minibox.base.codec import FileKind
from minibox.engine.process.undo import undo
from minibox.errors import NetworkError, NetworkNotFound, Unsupported, UsageError
from minibox.network import etc_files
from minibox.plan import parent
from minibox.plan.parent import undo_list
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from minibox.engine.spec.compile import IdentitySteps
    from minibox.engine.spec.options import RunOptions
    from minibox.network.lease import Lease
    from minibox.network.named import NamedNetwork
    from minibox.network.published import Wanted
    from minibox.network.rootless import RootlessTool
    from minibox.plan.operations import Op

JOINED = "networks"  # in a container's directory, once `networks.connect` or `disconnect` has changed its networks
ALIAS_MAX = 253  # characters of a host name


def _joined_before(data: bytes) -> dict[str, Any]:
    rows = [line.split("\t") for line in data.decode().split("\n") if line]
    return {"Networks": [{"Name": name, "Aliases": aliases} for name, *aliases in rows]}


JOINED_NETWORKS = FileKind("networks", {"Networks": [{"Name": str, "Aliases": [str]}]}, before=_joined_before)


@record
class Network:
    """A container's network.

    Attributes:
        mode: none, host, bridge, or the name of the rootless tool.
        note: a note for the user; "" for none.
        joined: for bridge, the networks with the container's aliases on each; None stands for the default network.
        dns: the name servers that the options name.
    """

    mode: str
    tool: RootlessTool | None = None
    note: str = ""
    joined: tuple[tuple[NamedNetwork | None, tuple[str, ...]], ...] = ()
    dns: tuple[str, ...] = ()

    @property
    def has_names(self) -> bool:
        """Whether a name server answers on one of its networks."""
        return any(named for named, _ in self.joined)


def choose(options: RunOptions, euid: int, root: str, directory: str = "") -> Network:
    """Choose the network that the options name, or the default: a bridge for root; pasta or slirp4netns for others.

    Args:
        directory: the container's own; its networks may have been changed since the options were given.

    Raises:
        NetworkError: an ordinary user can't have this network.
        NetworkNotFound: neither a mode nor a network.
    """
    mode = options.network
    if mode == "host":
        return Network(mode)
    changed = read_joined(directory) if directory else None
    if euid == 0 and (changed is not None or mode != "none"):
        wanted = [(mode, options.network_alias)] if changed is None else changed
        joined = tuple((_named(root, name), tuple(aliases)) for name, aliases in wanted)
        return Network("bridge" if joined else "none", joined=joined, dns=options.dns)
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
    """Refuse named networks to an ordinary user, and say what to do instead.

    Raises:
        Unsupported: always.
    """
    raise Unsupported(
        f"{what} needs root: an ordinary user can't make a bridge, or link containers in different user namespaces",
        "run as root, or run programs that talk to each other in one container, where they share its loopback",
    )


def _named(root: str, name: str) -> NamedNetwork | None:
    if name in ("", "bridge", "default"):
        return None
    from minibox.network.named import find

    try:
        return find(root, name)
    except NetworkNotFound as error:
        raise NetworkNotFound(str(error), "use none, host, bridge, or a network of minibox network ls") from None


def read_joined(directory: str) -> list[tuple[str, tuple[str, ...]]] | None:
    """Return the networks that a container was moved to, with its aliases on each; None if nothing was changed.

    Raises:
        Unreadable: the record is damaged.
    """
    try:
        found = JOINED_NETWORKS.read(f"{directory}/{JOINED}")["Networks"]
    except FileNotFoundError:
        return None
    return [(each["Name"], tuple(each["Aliases"])) for each in found]


def write_joined(directory: str, joined: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Record a container's networks, so that they outlast a restart."""
    rows = [{"Name": name, "Aliases": list(aliases)} for name, aliases in joined]
    JOINED_NETWORKS.write(f"{directory}/{JOINED}", {"Networks": rows}, durable=True)


def check_aliases(aliases: Iterable[str], option: str = "--network-alias") -> None:
    """Refuse invalid network aliases.

    Raises:
        UsageError: not a host name.
    """
    for alias in aliases:
        if not etc_files.is_name(alias) or len(alias) > ALIAS_MAX:
            raise UsageError(
                f"{option} {alias!r}: not a host name",
                f"use 1 to {ALIAS_MAX} letters, digits, dots, hyphens and underscores; don't begin with a hyphen or dot",
            )


def ports_to_publish(options: RunOptions, config: dict[str, Any], network: Network) -> tuple[tuple[Wanted, ...], str]:
    """Return the ports to publish on a network, and a note if they can't be published.

    Raises:
        UsageError: an invalid ``--publish`` or ``--expose``.
        Unsupported: an ordinary user's network can't publish them.
    """
    if not (options.publish or options.publish_all):
        return (), ""
    from minibox.engine.spec.ports import wanted_ports

    wanted = wanted_ports(options, config)
    if network.mode == "host":
        return (), "published ports are discarded: the container uses the host's network"
    if network.mode == "pasta":
        return wanted, ""
    if os.geteuid() and options.network != "none":
        raise Unsupported(
            f"publishing ports without root needs pasta: {network.note or 'only slirp4netns is installed'}",
            # What else is missing, the note says with the way out.
            ("" if network.note else "apt install passt, or ") + "use --network host, which shares the host's ports",
        )
    if network.joined and all(named and named.internal for named, _ in network.joined):
        return (), "published ports are discarded: an internal network can't be reached from outside"
    return wanted if network.joined else (), ""


class Connection:
    """The networks of one container: its addresses, its /etc/hosts and the like, and the steps that wire it."""

    def __init__(self, network: Network, runroot: str, container_id: str, ports: Sequence[Wanted] = ()) -> None:
        """Take an address on each network that hands them out.

        Args:
            ports: the ports to publish.

        Raises:
            NetworkError: no address is free.
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
        """Return an example for `explain`, without taking an address."""
        shown = cls(Network(network.mode, network.tool), runroot, container_id, ports)
        shown.network = network
        shown._leases = [_example(runroot, named, container_id) for named, _ in network.joined]
        return shown

    def lacks(self) -> str:
        """Return what its networks need and this host lacks; "" for nothing."""
        if self.network.mode == "bridge":
            from minibox.network.firewall import find_nft

            try:
                find_nft()
            except NetworkError as error:
                return f"its network needs nft, too: {error.hint}"
        return ""

    # ---- as steps -------------------------------------------------------------------------------

    @property
    def held(self) -> list[Op]:
        """Return the steps that hold its addresses."""
        return [parent.hold_address(held.state, held.address, held.container_id) for held in self._leases]

    @property
    def reserved(self) -> list[Op]:
        """Return the steps that reserve the host's ports to publish."""
        return [
            parent.reserve_port(each.protocol, each.address, each.first, each.last, each.inside) for each in self._ports
        ]

    @property
    def wiring(self) -> list[Op]:
        """Return the steps that connect the network namespace of the container's first process."""
        steps: list[Op] = []
        if self._leases:
            from minibox.network.lease import mac_text, veth_name

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
            if self.network.has_names:
                from minibox.network import name_server

                servers = name_server.servers(self.network.dns)
                steps.append(parent.name_server(name_server.directory(held.runroot), held.container_id, servers))
        elif self.network.tool:
            from minibox.network.rootless import command

            argv = command(self.network.tool, "$INIT", 0, self._ports)
            steps.append(parent.user_network(self.network.tool.name, tuple(argv)))
        return steps

    def published(self, directory: str) -> list[Op]:
        """Return the steps that forward published ports to the wired container.

        Args:
            directory: the container's own.
        """
        if not self._ports:
            return []
        from minibox.engine.state.ports import FILE

        noted = parent.note_ports(f"{directory}/{FILE}")
        if not self._leases:
            return [noted]  # the rootless tool forwards them
        from minibox.network.lease import veth_name
        from minibox.network.published import table_name

        way_in = next(each for each in self._leases if not each.internal)
        ports = [(each.protocol, each.address, _only(each), each.inside) for each in self._ports]
        return [
            *parent.publish(table_name(way_in.container_id), way_in.bridge, way_in.address, way_in.subnet, ports),
            parent.hairpin(veth_name(way_in)),
            noted,
        ]

    def steps(self, directory: str, held: Iterable[Op], socket: str = "") -> IdentitySteps:
        """Return the steps of a start that are the container's own.

        Args:
            directory: the container's own.
            held: those that record what was taken for it, addresses included.
            socket: the path where its supervisor accepts clients; "" for none.
        """
        from minibox.engine.spec.compile import IdentitySteps

        ports = (*self.reserved, *((parent.listen(socket),) if socket else ()))
        return IdentitySteps(tuple(held), ports, tuple(self.wiring), tuple(self.published(directory)))

    # ---- its files ------------------------------------------------------------------------------

    @property
    def address(self) -> str | None:
        """Return the IPv4 address on the first network, if that hands out addresses."""
        return self._leases[0].address if self._leases else None

    def texts(self, hostname: str, options: RunOptions) -> Mapping[str, str]:
        """Return the text of the container's /etc/hosts, /etc/hostname and /etc/resolv.conf.

        Raises:
            UsageError: ``--add-host`` or ``--dns`` has an invalid value.
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
        own = self.network.mode == "host"
        return {
            "/etc/hosts": etc_files.hosts_text(
                hostname, address, [(each.name, each.value) for each in options.add_host], gateway
            ),
            "/etc/hostname": etc_files.hostname_text(hostname),
            "/etc/resolv.conf": resolv_conf(
                options, dns, names=self.network.has_names, own=own, ipv6=not tool or tool.ipv6
            ),
        }

    def announce(self, names: Sequence[str]) -> None:
        """Make the container known to the other members of its networks.

        Args:
            names: the container's names on each network.
        """
        if not self.network.has_names:
            return
        from minibox.network import members

        for held, (named, aliases) in zip(self._leases, self.network.joined, strict=True):
            members.join(held, (*names, *aliases) if named else ())


def resolv_conf(options: RunOptions, dns: Sequence[str], *, names: bool, own: bool = False, ipv6: bool = True) -> str:
    """Return the text of a container's /etc/resolv.conf.

    Args:
        names: a name server answers on one of its networks.
        own: it has the host's network.
    """
    server = ""
    if names:
        from minibox.network.name_server import ADDRESS as server
    host_text = etc_files.host_resolv_conf()
    return etc_files.resolv_conf_text(
        host_text, dns, search=options.dns_search, options=options.dns_option,
        name_server=server, host_network=own, ipv6=ipv6,
    )  # fmt: skip


def _only(wanted: Wanted) -> int:
    """Return the port that is wanted; 0 if any of a range will do."""
    return wanted.first if wanted.first == wanted.last else 0


def _example(runroot: str, network: NamedNetwork | None, container_id: str) -> Lease:
    from minibox.network import lease

    if network is None:
        return lease.example(runroot, container_id)
    return lease.example(runroot, container_id, network.bridge, network.subnet)


def _take(runroot: str, network: NamedNetwork | None, container_id: str) -> Lease:
    if network is None:
        from minibox.network import lease

        return lease.take(runroot, container_id)
    from minibox.network.named import take

    return take(runroot, network, container_id)
