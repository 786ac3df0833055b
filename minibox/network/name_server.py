"""The name server of networks with names, as far as it isn't C: each member's sockets, and the tables of names.

    runroot/dns/tables/<bridge>     who is on the network and under which names; ``native/dns/table.h``
    runroot/dns/socket              where members register; there while a network has members

It answers at 127.0.0.11:53 inside each member. A socket stays in the network namespace that it was made in, so one
server, a small C program (``native/dns/``), answers for all of them. A process beside each container keeps the sockets
and starts the server when there is none.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os

from minibox.base.files import close_descriptors, closing, discard, names_in, remove_all, replace_file
from minibox.base.lock import Lock
from minibox.errors import NetworkError, suppress, trying
from minibox.network import etc_files, ipv4, rtnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ADDRESS = "127.0.0.11"  # Docker's
PORT = 53
KEEPER_ARGV0 = "minibox-member"
IP_FREEBIND = 15  # ip(7); the container sets up its loopback later
BACKLOG = 128
LEAVING_S = 0.2  # for a server whose last member has just ended
POLL_S = 0.002


def directory(runroot: str) -> str:
    """Return the server's directory."""
    return f"{runroot}/dns"


def servers(dns: Sequence[str]) -> tuple[str, ...]:
    """Return the name servers that are asked for other names, with their ports: those of ``--dns``, or the host's.

    They are asked in the host's network namespace, so one on the host's loopback is as good as any.
    """
    found = dns or etc_files.nameservers(etc_files.host_resolv_conf()) or etc_files.PUBLIC_NAMESERVERS
    return tuple(word for server in found if (word := _with_port(server)))


def _with_port(server: str) -> str:
    address, _, zone = server.partition("%")
    if not (ipv4.is_ipv4(address) or ipv4.is_ipv6(address)):
        return ""
    try:
        scope = f" {_socket.if_nametoindex(zone)}" if zone else ""
    except OSError:  # no such link
        return ""
    return f"{address} {PORT}{scope}"


def make_sockets(netns: str) -> tuple[int, int] | None:
    """Make the UDP socket and the TCP socket of the name server in a network namespace.

    Args:
        netns: its path.

    Returns:
        The sockets; None if somebody has the port there, such as the name server.

    Raises:
        NetworkError: the kernel refuses.
    """
    with trying(NetworkError, f"make the sockets of the name server in {netns}"):
        with closing(os.open(netns, os.O_RDONLY | os.O_CLOEXEC)) as fd:
            made = rtnetlink.in_netns(fd, _make)
    return (made[0].detach(), made[1].detach()) if made else None


def _make() -> list[_socket.socket] | None:
    made = []
    try:
        for kind in (_socket.SOCK_DGRAM, _socket.SOCK_STREAM):
            made.append(each := _socket.socket(_socket.AF_INET, kind | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK))
            each.setsockopt(_socket.IPPROTO_IP, IP_FREEBIND, 1)
            each.bind((ADDRESS, PORT))
        made[1].listen(BACKLOG)
    except OSError as error:
        for each in made:
            each.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return made


def keeper_command(directory: str, container_id: str, servers: Iterable[str], *, detached: bool) -> tuple[str, ...]:
    """Return the arguments of the keeper of a member's sockets. See ``native/dns/member.c``.

    Args:
        detached: it is nobody's child.
    """
    return (KEEPER_ARGV0, directory, str(int(detached)), container_id, *servers)


def serve_running(runroot: str, container_id: str, pid: int, pidfd: int, servers: Iterable[str]) -> None:
    """Give a running container a name server, unless it has one.

    Raises:
        NetworkError: the kernel refuses.
    """
    from minibox.linux.executable import open_init
    from minibox.linux.process import Program

    made = make_sockets(f"/proc/{pid}/ns/net")
    if made is None:
        return
    program, init_fd = Program(), -1
    try:
        with trying(NetworkError, f"start the keeper of the name server of {container_id[:12]}"):
            init_fd = open_init()
            argv = keeper_command(directory(runroot), container_id, servers, detached=True)
            program.start(f"/proc/self/fd/{init_fd}", argv, {}, (*made, init_fd, pidfd))
            os.waitpid(program.pid, 0)  # it goes on in a child that is nobody's
    finally:
        program.close()
        close_descriptors(*made, *([init_fd] if init_fd >= 0 else []))


# ---- tables ---------------------------------------------------------------------------------------


def write_table(runroot: str, bridge: str, text: str) -> None:
    """Replace the table of a network. The server reads it at once."""
    tables = f"{directory(runroot)}/tables"
    with Lock(f"{runroot}/network"):
        os.makedirs(tables, 0o700, exist_ok=True)
        os.chmod(tables, 0o755)  # the server has no privileges; nobody else gets to it through the directory above
        replace_file(f"{tables}/{bridge}", text.encode(), mode=0o644)


def remove_table(runroot: str, bridge: str) -> None:
    """Remove the table of a network without members. With the last one the server's directory is removed."""
    place = directory(runroot)
    with Lock(f"{runroot}/network"), suppress(FileNotFoundError):
        discard(f"{place}/tables/{bridge}")
        if not names_in(f"{place}/tables") and _is_unused(place):
            remove_all(place)


def _is_unused(place: str) -> bool:
    """Return whether no server runs. It ends with its last member, a moment later."""
    from time import monotonic, sleep

    with closing(os.open(place, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        deadline = monotonic() + LEAVING_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if monotonic() > deadline:
                    return False  # of a container that has left all networks and runs on
                sleep(POLL_S)
