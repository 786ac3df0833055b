"""A container's network: which one, the files that tell of it, its wiring and its end."""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_SEQPACKET, socketpair

from minibox.errors import NetworkError
from minibox.network import files, lease
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Mapping

    from minibox.engine.options import RunOptions
    from minibox.engine.start import Spawn
    from minibox.linux.process import Child
    from minibox.linux.supervisor import SupervisedChild
    from minibox.network.lease import Lease
    from minibox.network.rootless import RootlessTool


SIGTERM = 15
SOCK_CLOEXEC = 0o2000000


@record
class Network:
    """A choice.

    Attributes:
        mode: none, host, bridge, or the name of the rootless tool.
        note: what the user should know of it; "" for nothing.
    """

    mode: str
    tool: RootlessTool | None = None
    note: str = ""


def choose(options: RunOptions, euid: int) -> Network:
    """The network that was asked for, or the default: a bridge for root, pasta or slirp4netns for others.

    Raises:
        NetworkError: the mode is unknown, or an ordinary user can't have it.
    """
    mode = options.network
    if mode in ("none", "host"):
        return Network(mode)
    if mode not in ("", "bridge"):
        raise NetworkError(f"there is no network {mode!r}", "one of none, host, bridge")
    if euid == 0:
        return Network("bridge")
    if mode == "bridge":
        raise NetworkError("an ordinary user can't add links to a bridge", "leave out --network, or run as root")
    from minibox.network.rootless import find_tool

    tool, note = find_tool()
    return Network(tool.name, tool) if tool else Network("none", note=note)


class Connection:
    """The network of one container, from its addresses to its end."""

    def __init__(self, network: Network, runroot: str, container_id: str) -> None:
        """Take an address where addresses are handed out.

        Raises:
            NetworkError: none is free.
        """
        self.network = network
        self._lease: Lease | None = lease.take(runroot, container_id) if network.mode == "bridge" else None
        self._tool: Child | SupervisedChild | None = None
        self._socket: socket | None = None

    def texts(self, hostname: str, options: RunOptions) -> Mapping[str, str]:
        """The container's /etc/hosts, /etc/hostname and /etc/resolv.conf.

        Raises:
            UsageError: ``--add-host`` or ``--dns`` has a value that can't be meant.
        """
        tool, held = self.network.tool, self._lease
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

    def wire(self, pid: int, spawn: Spawn | None = None) -> None:
        """Give the network namespace of a process its links.

        Args:
            spawn: makes the process of a tool that isn't to be a child of ours.

        Raises:
            NetworkError: the kernel, nft or the tool refuses.
        """
        if self._lease:
            from minibox.network import bridge

            netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                bridge.wire(self._lease, netns)
            finally:
                os.close(netns)
        elif self.network.tool:
            self._start_tool(self.network.tool, pid, spawn)

    def _start_tool(self, tool: RootlessTool, pid: int, spawn: Spawn | None) -> None:
        """Start pasta or slirp4netns, as a child that dies with its parent, and wait until it is ready."""
        from minibox.linux.process import Child, signatures
        from minibox.network.rootless import command, is_ready
        from minibox.plan import operations as op
        from minibox.plan.encode import encode

        argv = tuple(command(tool, pid, 0))
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
        try:
            slots = [its.fileno(), -1, announce, null, said]
            self._tool = (spawn or Child)(encode(steps, signatures()), 0, slots, len(steps))
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
        self._tool = self._socket = self._lease = None

    def close(self) -> None:
        """Give back the address, end the tool. The links go with the container's namespace."""
        if self._tool:
            self._tool.end(SIGTERM)
            self._tool.close()
            self._tool = None
        if self._socket:
            self._socket.close()
            self._socket = None
        if self._lease:
            lease.release(self._lease)
            self._lease = None
