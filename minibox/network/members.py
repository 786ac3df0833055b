"""The names of a network's members, as lines in the members' /etc/hosts.

    runroot/network/<bridge>/names/<container id>    the path of its hosts file; its address and its names

A hosts file needs no server that could be down, and every resolver reads it. Each member has its own. We write to it in
place, because the container has it mounted by its inode. We change only our own lines, which end in the name of the
bridge; whatever else the container wrote there stays.
"""

from __future__ import annotations

import os

from minibox.base import damage
from minibox.base.codec import FileKind
from minibox.base.files import closing, discard, read_fd, write_all
from minibox.base.lock import Lock
from minibox.errors import NetworkError, Unreadable, suppress, trying
from minibox.network import etc_files, ipv4
from minibox.network import lease as leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minibox.network.lease import Lease

HOSTS_BYTES_MAX = 256 << 10  # we don't add names to a larger hosts file


def host_name(value: object) -> bool:
    """A shape: a name that can be written to /etc/hosts."""
    return isinstance(value, str) and etc_files.is_name(value)


def ipv4_address(value: object) -> bool:
    """A shape: ``10.212.0.7``."""
    return isinstance(value, str) and ipv4.is_ipv4(value)


def _before(data: bytes) -> dict[str, Any]:
    hosts_path, line, *_ = data.decode().split("\n")
    address, _, names = line.partition("\t")
    return {"Hosts": hosts_path, "Address": address, "Names": names.split()}


MEMBER = FileKind("member", {"Hosts": str, "Address": ipv4_address, "Names": [host_name]}, before=_before)


def join(lease: Lease, hosts_path: str, names: Iterable[str]) -> None:
    """Tell the other containers on the network about this one, and this one about them.

    Args:
        hosts_path: the existing file that the container has as /etc/hosts.
        names: its names. Those that can't be host names are left out; names that the user gave were checked before.

    Raises:
        NetworkError: the kernel refused, or names can't be added to the container's hosts file.
    """
    state = leases.directory(lease.runroot, lease.bridge)
    known = list(dict.fromkeys(name for name in names if etc_files.is_name(name)))
    with trying(NetworkError, f"make {lease.container_id[:12]} known on {lease.bridge}"):
        os.makedirs(f"{state}/names", 0o700, exist_ok=True)
        with Lock(state):
            fields = {"Hosts": hosts_path, "Address": lease.address, "Names": known}
            MEMBER.write(f"{state}/names/{lease.container_id}", fields)
            _tell_all(state, lease.bridge, lease.container_id)


def leave(lease: Lease, *, ended: bool = False) -> None:
    """Give back an address, and remove the names from the other members' hosts files. Doing it twice is no error.

    Args:
        ended: the container has ended. Its own file stays as it is: if a pipe still holds its pages (sendfile(2)),
            truncating it would zero their end.

    Raises:
        NetworkError: the kernel refused.
    """
    leave_at(leases.directory(lease.runroot, lease.bridge), lease.address, lease.container_id, ended=ended)


def leave_at(state: str, address: str, container_id: str, *, ended: bool) -> None:
    """Like `leave`, by the directory of the bridge's state and the address."""
    path, bridge = f"{state}/names/{container_id}", os.path.basename(state)
    if os.path.lexists(path):
        # another process was faster
        with trying(NetworkError, f"forget {container_id[:12]} on {bridge}"), suppress(FileNotFoundError):
            with Lock(state):
                hosts_path = _hosts_of(path)
                discard(path)
                _tell_all(state, bridge)
                if hosts_path and not ended:
                    _tell_if_it_can(hosts_path, bridge, [])
    leases.release_at(state, address, container_id)


def leave_all(runroot: str, container_id: str) -> None:
    """Do the same for a container that has ended, on all networks that it is on, if any."""
    for lease in leases.of(runroot, container_id):
        leave(lease, ended=True)


def names_of(lease: Lease) -> list[str]:
    """Return a member's names."""
    try:
        found = MEMBER.read(f"{leases.directory(lease.runroot, lease.bridge)}/names/{lease.container_id}")
    except (OSError, Unreadable):
        return []
    return list(found["Names"])


def _hosts_of(path: str) -> str:
    try:
        return str(MEMBER.read(path)["Hosts"])
    except Unreadable:
        return ""


def _tell_all(state: str, bridge: str, joining: str = "") -> None:
    """Update the hosts files of all members.

    Args:
        joining: the id of the new member, the only one whose hosts file must not fail.
    """
    known = {}
    for name in sorted(os.listdir(f"{state}/names")):
        if "." in name:  # being written
            continue
        try:
            known[name] = MEMBER.read(f"{state}/names/{name}")
        except FileNotFoundError:
            continue
        except Unreadable as error:
            damage.tell(error)
    lines = [f"{each['Address']}\t{' '.join(each['Names'])}" for each in known.values()]
    for container_id, found in known.items():
        tell = _tell if container_id == joining else _tell_if_it_can
        tell(found["Hosts"], bridge, lines)


def _tell_if_it_can(hosts_path: str, bridge: str, lines: list[str]) -> None:
    """Like `_tell`, but ignore errors: a member that broke its own file gets no names, and the others are fine."""
    with suppress(OSError):
        _tell(hosts_path, bridge, lines)


def _tell(hosts_path: str, bridge: str, lines: list[str]) -> None:
    """Replace the lines of this network by ``lines``.

    The container can write to the file, too: it may be of any size, or have a lease that open(2) would wait for.

    Raises:
        OSError: with the path.
    """
    end = f"\t# {bridge}".encode()
    try:
        fd = os.open(hosts_path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # it is being removed
    with closing(fd):
        before = read_fd(fd, HOSTS_BYTES_MAX, hosts_path)
        there = before.removesuffix(b"\n").split(b"\n") if before else []
        kept = [line for line in there if not line.endswith(end)]
        data = b"".join(line + b"\n" for line in (*kept, *(line.encode() + end for line in lines)))
        if data != before:
            # Write everything before truncating: a reader may see old lines twice, but never misses one.
            write_all(fd, data)
            os.ftruncate(fd, len(data))
