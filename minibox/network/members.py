"""The names of a network's members. The name server reads them from a table of the network (`name_server`).

runroot/network/<bridge>/names/<container id>    its address and its names
"""

from __future__ import annotations

import os

from minibox.base import damage
from minibox.base.codec import FileKind
from minibox.base.files import discard, names_in
from minibox.base.lock import Lock
from minibox.errors import NetworkError, Unreadable, suppress, trying
from minibox.network import etc_files, ipv4, name_server
from minibox.network import lease as leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minibox.network.lease import Lease

DEFAULT_NETWORK = "bridge"


def host_name(value: object) -> bool:
    """A shape: a host name."""
    return isinstance(value, str) and etc_files.is_name(value)


def ipv4_address(value: object) -> bool:
    """A shape: ``10.212.0.7``."""
    return isinstance(value, str) and ipv4.is_ipv4(value)


def _before(data: bytes) -> dict[str, Any]:
    hosts_path, line, *_ = data.decode().split("\n")
    address, _, names = line.partition("\t")
    return {"Hosts": hosts_path, "Address": address, "Names": names.split()}


#: ``Hosts`` is of before there was a name server.
MEMBER = FileKind("member", {"Hosts?": str, "Address": ipv4_address, "Names": [host_name]}, before=_before)


def join(lease: Lease, names: Iterable[str]) -> None:
    """Tell the name server who has this address.

    Args:
        names: its names; none on the default network. Those that can't be host names are left out; names that the user
            gave were checked before.

    Raises:
        NetworkError: the kernel refused.
    """
    state = leases.directory(lease.runroot, lease.bridge)
    known = list(dict.fromkeys(name for name in names if etc_files.is_name(name)))
    with trying(NetworkError, f"make {lease.container_id[:12]} known on {lease.bridge}"):
        os.makedirs(f"{state}/names", 0o700, exist_ok=True)
        with Lock(state):
            MEMBER.write(f"{state}/names/{lease.container_id}", {"Address": lease.address, "Names": known})
            _tell(state)


def rename(runroot: str, container_id: str, old_name: str, new_name: str) -> None:
    """Give a container another name on all networks that know it by the old one.

    Raises:
        NetworkError: the kernel refused.
    """
    for held in leases.of(runroot, container_id):
        state = leases.directory(runroot, held.bridge)
        with trying(NetworkError, f"make {container_id[:12]} known as {new_name} on {held.bridge}"), Lock(state):
            known = names_of(held)
            if old_name in known:
                changed = dict.fromkeys(new_name if name == old_name else name for name in known)
                names = [name for name in changed if etc_files.is_name(name)]
                MEMBER.write(f"{state}/names/{container_id}", {"Address": held.address, "Names": names})
                _tell(state)


def leave(lease: Lease) -> None:
    """Give back an address, and forget the names. Doing it twice is no error.

    Raises:
        NetworkError: the kernel refused.
    """
    leave_at(leases.directory(lease.runroot, lease.bridge), lease.address, lease.container_id)


def leave_at(state: str, address: str, container_id: str) -> None:
    """Like `leave`, by the directory of the bridge's state and the address."""
    path, bridge = f"{state}/names/{container_id}", os.path.basename(state)
    if os.path.lexists(path):
        # another process was faster
        with trying(NetworkError, f"forget {container_id[:12]} on {bridge}"), suppress(FileNotFoundError):
            with Lock(state):
                discard(path)
                _tell(state)
    leases.release_at(state, address, container_id)


def leave_all(runroot: str, container_id: str) -> None:
    """Do the same for a container that has ended, on all networks that it is on, if any."""
    for lease in leases.of(runroot, container_id):
        leave(lease)


def names_of(lease: Lease) -> list[str]:
    """Return a member's names."""
    try:
        found = MEMBER.read(f"{leases.directory(lease.runroot, lease.bridge)}/names/{lease.container_id}")
    except (OSError, Unreadable):
        return []
    return list(found["Names"])


def is_known(lease: Lease) -> bool:
    """Does the name server know of this member?"""
    return os.path.lexists(f"{leases.directory(lease.runroot, lease.bridge)}/names/{lease.container_id}")


def _tell(state: str) -> None:
    """Replace the network's table. Needs the lock."""
    bridge, runroot = os.path.basename(state), os.path.dirname(os.path.dirname(state))
    rows = []
    for name in names_in(f"{state}/names"):
        if "." in name:  # being written
            continue
        try:
            found = MEMBER.read(f"{state}/names/{name}")
        except FileNotFoundError:
            continue
        except Unreadable as error:
            damage.tell(error)
            continue
        rows.append(" ".join((name, found["Address"], *found["Names"])))
    subnet = leases.recorded(state)
    if not rows or not subnet:
        name_server.remove_table(runroot, bridge)
        return
    network = os.path.basename(leases.network_of(state)) or DEFAULT_NETWORK
    head = f"network {network} {int(leases.is_internal(bridge))} {subnet}"
    name_server.write_table(runroot, bridge, "".join(f"{line}\n" for line in (head, *rows)))
