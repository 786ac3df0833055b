"""A container's networks: which, the files that tell of them, their wiring and their end."""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_SEQPACKET, socketpair

from minibox.base.codec import FileKind
from minibox.errors import NetworkError, NetworkNotFound, Unsupported, UsageError
from minibox.network import files, lease, members
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from minibox.engine.options import RunOptions
    from minibox.linux.requests import RequestedChild
    from minibox.network.lease import Lease
    from minibox.network.named import NamedNetwork
    from minibox.network.published import Published, Wanted
    from minibox.network.rootless import RootlessTool


SIGTERM = 15
SOCK_CLOEXEC = 0o2000000
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
    from minibox.engine.port_words import wanted_ports

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
    """The networks of one container, from its addresses to its end.

    Attributes:
        published: its ports that lead to it from this host, once they are reserved.
        held: descriptors that have to stay open for as long as it has them.
    """

    def __init__(self, network: Network, runroot: str, container_id: str, ports: Sequence[Wanted] = ()) -> None:
        """Take an address where addresses are handed out.

        Args:
            ports: that are to be published.

        Raises:
            NetworkError: none is free.
        """
        self.network = network
        self.published: list[Published] = []
        self.held: list[int] = []
        self._ports = ports
        self._tool: RequestedChild | None = None
        self._socket: socket | None = None
        self._leases: list[Lease] = []
        try:
            for named, _ in network.joined:
                self._leases.append(_take(runroot, named, container_id))
        except BaseException:
            self.close()
            raise

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

    def reserve_ports(self) -> None:
        """Take the ports of this host that are to be published.

        Raises:
            PortTaken, NetworkError: one can't be had.
        """
        from minibox.network.published import reserve

        for wanted in self._ports:
            port, fd = reserve(wanted)
            self.published.append(port)
            self.held.append(fd)

    def publish(self) -> None:
        """Lead them to the container, which is wired.

        Raises:
            NetworkError: the kernel refuses.
        """
        from minibox.network.bridge import reflect
        from minibox.network.published import lead

        if self._tool:
            return  # it does
        way_in = next(each for each in self._leases if not each.internal)
        self.held.append(lead(way_in, self.published))
        reflect(way_in)

    def wire(self, pid: int, spawn_helper: Callable[..., RequestedChild]) -> None:
        """Give the network namespace of a process its links.

        Args:
            spawn_helper: makes the process of a tool that carries packets.

        Raises:
            NetworkError: the kernel, nft or the tool refuses.
        """
        if self._leases:
            from minibox.network import bridge

            netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                for number, held in enumerate(self._leases):
                    bridge.wire(held, netns, f"eth{number}")
            finally:
                os.close(netns)
        elif self.network.tool:
            self._start_tool(self.network.tool, pid, spawn_helper)

    def _start_tool(self, tool: RootlessTool, pid: int, spawn_helper: Callable[..., RequestedChild]) -> None:
        """Start pasta or slirp4netns, which dies with its parent, and wait until it is ready."""
        from minibox.linux.process import signatures
        from minibox.network.rootless import command, is_ready
        from minibox.plan import operations as op
        from minibox.plan.encode import encode

        argv = tuple(command(tool, pid, 0, self.published))
        environment = tuple(f"{name}={value}" for name, value in os.environ.items())
        steps = [
            op.die_with_parent("it carries packets for a container that dies with us"),
            op.stdio(op.STDIN, op.STDOUT, op.STDERR, "it announces itself on descriptor 0: on 1 it chatters"),
            op.close_fds("nothing else of ours"),
            op.exec_((tool.path,), argv, environment, "user-mode networking"),
        ]
        ours, its = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        ready, announce = os.pipe2(os.O_CLOEXEC)
        said = os.memfd_create("minibox-network", os.MFD_CLOEXEC)
        null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        self.close_held()  # it binds them itself
        try:
            slots = [its.fileno(), -1, announce, null, said]
            self._tool = spawn_helper(encode(steps, signatures()), 0, slots, len(steps))
            self._socket = ours  # held: its other end tells the child that we are there
            os.close(announce)
            announce = -1
            if not is_ready(os.read(ready, 64)):
                words = os.pread(said, 4096, 0).decode(errors="replace").strip().replace("\n", "; ")
                raise NetworkError(f"{tool.name} can't connect the container: {words or 'it ended'}", "--network none")
        finally:
            its.close()
            for fd in (ready, announce, said, null):
                if fd >= 0:
                    os.close(fd)

    def release(self) -> None:
        """It outlasts this process."""
        if self._tool:
            self._tool.close()
        if self._socket:
            self._socket.close()
        self._tool = self._socket = None
        self._leases.clear()
        self.close_held()

    def close(self) -> None:
        """Give back ports and address, end the tool. The links go with the container's namespace."""
        self.close_held()
        if self._tool:
            self._tool.end(SIGTERM)
            self._tool.close()
            self._tool = None
        if self._socket:
            self._socket.close()
            self._socket = None
        while self._leases:
            members.leave(self._leases[-1], ended=True)
            self._leases.pop()

    def close_held(self) -> None:
        """This process holds its ports no longer; one that has copies of the descriptors may."""
        while self.held:
            os.close(self.held.pop())


def _take(runroot: str, network: NamedNetwork | None, container_id: str) -> Lease:
    if network is None:
        return lease.take(runroot, container_id)
    from minibox.network.named import take

    return take(runroot, network, container_id)
