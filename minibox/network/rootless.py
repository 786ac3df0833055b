"""A network for an ordinary user's container: pasta or slirp4netns, in user space.

An ordinary user can't put a veth on the host. Both programs enter the container's namespaces, make
a tap device `eth0` there, configure it and carry its packets over ordinary sockets of the user's.

How to run one (`command`), tried with Debian 12's pasta 0.0~git20230309 and slirp4netns 1.2.0:

- Start it once the container's user and network namespaces are there and its id maps are written;
  both set `lo` up too. It needs /dev/net/tun, and no privilege.
- Readiness: it writes to ``ready_fd``, a pipe's write end that it inherits: pasta its pid when it
  listens (20 ms; a daemonizing pasta takes as long), slirp4netns "1" (10 ms). End of file without
  a byte means it failed, and its stderr says why (stdout is chatter: /dev/null). Close ``ready_fd`` in the parent first.
- Its end: neither of them notices that the container is gone, so the engine sends SIGTERM when it
  is, and sets PR_SET_PDEATHSIG in the child so that it dies with a killed owner. The signal stays
  set, since the user namespace that they enter belongs to the same user.
"""

from __future__ import annotations

import os

from minibox.base.lines import lines_of
from minibox.network.host_files import read_text
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minibox.network.published import Published

TUN = "/dev/net/tun"
PLACES = "/usr/bin:/usr/local/bin:/bin"


@record
class RootlessTool:
    """A program that gives a rootless container its network, and what it implies.

    Attributes:
        name: ``pasta`` or ``slirp4netns``.
        path: of the program.
        address: the container's, for /etc/hosts; None: a copy of the host's, not known beforehand.
        host_gateway: the address by which the container reaches the host; None: it can't.
        nameserver: what /etc/resolv.conf names in place of the host's; None: the host's own,
            without those on loopback.
        ipv6: whether the container gets IPv6 where the host has it.
    """

    name: str
    path: str
    address: str | None
    host_gateway: str | None
    nameserver: str | None
    ipv6: bool


def find_tool(path: str = "") -> tuple[RootlessTool | None, str]:
    """The installed tool, pasta before slirp4netns, or None and a note that says what is missing.

    Args:
        path: a search path in place of $PATH.
    """
    if not os.access(TUN, os.R_OK | os.W_OK):
        return None, f"no network: {TUN} is not there or not open to this user (chmod 0666 {TUN})"
    path = path or f"{os.environ.get('PATH', '')}:{PLACES}"
    pasta, slirp = _find("pasta", path), _find("slirp4netns", path)
    if pasta and has_default_route():  # it copies the addresses of the link that leads out, and fails without one
        return RootlessTool("pasta", pasta, None, None, None, True), ""
    if slirp:
        return RootlessTool("slirp4netns", slirp, "10.0.2.100", None, "10.0.2.3", False), ""
    if pasta:
        return None, "no network: this machine is offline (no default route)"
    return None, "no network: neither pasta nor slirp4netns is installed (apt install passt)"


def has_default_route(directory: str = "/proc/net") -> bool:
    """Whether a link of this network namespace leads everywhere, by IPv4 or IPv6; proc_net(5).

    Args:
        directory: where ``route`` and ``ipv6_route`` are.
    """
    for line in lines_of(read_text(f"{directory}/route")):
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000":  # destination and mask
            return True
    for line in lines_of(read_text(f"{directory}/ipv6_route")):
        fields = line.split()  # "::/0 unreachable" is on lo
        if len(fields) > 9 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
            return True
    return False


def command(tool: RootlessTool, pid: int, ready_fd: int, ports: Sequence[Published] = ()) -> list[str]:
    """The command line that connects the namespaces of process ``pid``; it stays in the foreground.

    No other port is forwarded in either direction, and the host's loopback can't be reached.

    Args:
        ready_fd: the number of the inherited pipe end that it announces itself on.
        ports: that pasta leads to the container; slirp4netns does it for none.
    """
    if tool.name == "pasta":
        # No --mtu 0: this version then leaves eth0 down. The pid file may be a pipe.
        published = {
            option: [f"{each.address}/{each.port}:{each.inside}" for each in ports if each.protocol == protocol]
            for option, protocol in (("-t", "tcp"), ("-u", "udp"), ("-T", ""), ("-U", ""))
        }
        forwards = [
            word for option, each in published.items() for value in each or ["none"] for word in (option, value)
        ]
        options = ["--config-net", "--foreground", "--quiet", "--ns-ifname", "eth0", "--no-map-gw", *forwards]
        return [tool.path, *options, "--pid", f"/proc/self/fd/{ready_fd}", str(pid)]
    options = ["--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"]
    return [tool.path, *options, f"--ready-fd={ready_fd}", str(pid), "eth0"]


def is_ready(announcement: bytes) -> bool:
    """Whether what was read from the pipe says that the network is there."""
    return announcement.strip().isdigit()


def dns_for(tool: RootlessTool, dns: Sequence[str]) -> tuple[str, ...]:
    """The name servers to pass to `files.resolv_conf_text`: those asked for, or the tool's own; empty: the host's."""
    return tuple(dns) or ((tool.nameserver,) if tool.nameserver else ())


def _find(name: str, path: str) -> str:
    for place in path.split(":"):
        candidate = f"{place}/{name}"
        if place and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return ""
