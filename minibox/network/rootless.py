"""A network for an ordinary user's container: pasta or slirp4netns, in user space.

An ordinary user can't make a veth on the host. Both programs enter the container's namespaces, make a tap device `eth0`
there, configure it, and carry its packets over the user's ordinary sockets.

How to run one (`command`), tested with Debian 12's pasta 0.0~git20230309 and slirp4netns 1.2.0:

- Start it once the container's user and network namespaces exist and its id maps are written. Both programs also set
  `lo` up. They need /dev/net/tun, but no privilege.
- When it is ready, it writes to ``ready_fd``, the write end of a pipe that it inherits: pasta its pid (after 20 ms;
  it takes as long to daemonize), slirp4netns "1" (after 10 ms). End of file without a byte means it failed, and its
  stderr says why (its stdout is only chatter: send it to /dev/null). Close ``ready_fd`` in the parent before you
  read.
- Neither program notices that the container is gone. So the engine sends SIGTERM then, and sets PR_SET_PDEATHSIG in the
  child so that it dies if its owner is killed. That setting survives, because the user namespace that the program
  enters belongs to the same user.
"""

from __future__ import annotations

import os

from minibox.base.files import text_of
from minibox.base.lines import lines_of
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minibox.network.published import Wanted

TUN = "/dev/net/tun"
PLACES = "/usr/bin:/usr/local/bin:/bin"


@record
class RootlessTool:
    """A program that gives a rootless container its network, and the container's network settings with it.

    Attributes:
        name: ``pasta`` or ``slirp4netns``.
        path: the program's path.
        address: the container's, for /etc/hosts; None: it is a copy of the host's, which isn't known beforehand.
        host_gateway: the address at which the container reaches the host; None: it can't.
        nameserver: the name server for /etc/resolv.conf; None: the host's own, without those on loopback.
        ipv6: the container gets IPv6 if the host has it.
    """

    name: str
    path: str
    address: str | None
    host_gateway: str | None
    nameserver: str | None
    ipv6: bool


def find_tool(path: str = "") -> tuple[RootlessTool | None, str]:
    """Find an installed tool, preferably pasta. Return None and a note about what is missing if there is none.

    Args:
        path: a search path to use instead of $PATH.
    """
    if not os.access(TUN, os.R_OK | os.W_OK):
        return None, f"no network: {TUN} is missing or this user may not open it (chmod 0666 {TUN})"
    path = path or f"{os.environ.get('PATH', '')}:{PLACES}"
    pasta, slirp = _find("pasta", path), _find("slirp4netns", path)
    if pasta and has_default_route():  # it copies the addresses of the link with the default route, and needs one
        return RootlessTool("pasta", pasta, None, None, None, True), ""
    if slirp:
        return RootlessTool("slirp4netns", slirp, "10.0.2.100", None, "10.0.2.3", False), ""
    if pasta:
        return None, "no network: this machine is offline (no default route)"
    return None, "no network: neither pasta nor slirp4netns is installed (apt install passt)"


def has_default_route(directory: str = "/proc/net") -> bool:
    """Tell whether this network namespace has a default route, for IPv4 or IPv6; proc_net(5).

    Args:
        directory: contains ``route`` and ``ipv6_route``.
    """
    for line in lines_of(text_of(f"{directory}/route")):
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000":  # destination and mask
            return True
    for line in lines_of(text_of(f"{directory}/ipv6_route")):
        fields = line.split()  # "::/0 unreachable" is on lo
        if len(fields) > 9 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
            return True
    return False


def command(tool: RootlessTool, pid: int | str, ready_fd: int, ports: Sequence[Wanted] = ()) -> list[str]:
    """The command line that connects the namespaces of process ``pid``; it stays in the foreground.

    No port but ``ports`` is forwarded in either direction, and the container can't reach the host's loopback.

    Args:
        ready_fd: the number of the inherited pipe end that it announces itself on.
        ports: that are to be published, which pasta leads to the container; slirp4netns does it for none.
    """
    if tool.name == "pasta":
        # No --mtu 0: this version then leaves eth0 down. The pid file may be a pipe.
        published = {
            option: [
                f"{each.address}/{_port(each, number)}:{each.inside}"
                for number, each in enumerate(ports, 1)
                if each.protocol == protocol
            ]
            for option, protocol in (("-t", "tcp"), ("-u", "udp"), ("-T", ""), ("-U", ""))
        }
        forwards = [
            word for option, each in published.items() for value in each or ["none"] for word in (option, value)
        ]
        options = ["--config-net", "--foreground", "--quiet", "--ns-ifname", "eth0", "--no-map-gw", *forwards]
        return [tool.path, *options, "--pid", f"/proc/self/fd/{ready_fd}", str(pid)]
    options = ["--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"]
    return [tool.path, *options, f"--ready-fd={ready_fd}", str(pid), "eth0"]


def _port(wanted: Wanted, number: int) -> str:
    """``$PORT_1`` for the first that was reserved, where any of some will do."""
    return str(wanted.first) if wanted.first == wanted.last and wanted.first else f"$PORT_{number}"


def is_ready(announcement: bytes) -> bool:
    """Tell whether the bytes read from the pipe say that the network is ready."""
    return announcement.strip().isdigit()


def dns_for(tool: RootlessTool, dns: Sequence[str]) -> tuple[str, ...]:
    """Return the name servers for `files.resolv_conf_text`: the given ones, or the tool's own; none for the host's."""
    return tuple(dns) or ((tool.nameserver,) if tool.nameserver else ())


def _find(name: str, path: str) -> str:
    for place in path.split(":"):
        candidate = f"{place}/{name}"
        if place and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return ""
