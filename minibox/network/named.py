"""Named networks: files ``root/networks/<name>``, each with a bridge of its own.

A network that a program made by embedding minibox ends with that program: it holds a lock (flock) on the network's
file, as for containers, and `collect` removes networks whose lock is free. One made by `minibox network create` has
no owner, and stays.
"""

from __future__ import annotations

import fcntl
import os
from binascii import crc32
from time import time

from minibox.base import damage
from minibox.base.codec import FileKind
from minibox.base.files import discard, names_in, replace_locked, sync_directory
from minibox.base.lock import Lock
from minibox.base.shape import long_id, moment
from minibox.errors import (
    Damaged,
    NetworkError,
    NetworkInUse,
    NetworkNotFound,
    Unreadable,
    UsageError,
    suppress,
    trying,
)
from minibox.network import bridge, ipv4, members, subnet
from minibox.network import lease as leases
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from minibox.base.home import Home
    from minibox.network.ipv4 import Subnet
    from minibox.network.lease import Lease

MODES = ("none", "host", "bridge", "default", "container")
_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
SMALLEST = 29  # bits of the prefix: 5 members


def _before(data: bytes) -> dict[str, Any]:
    first, *rest = data.decode(errors="surrogateescape").removesuffix("\n").split("\n")
    found, chosen, internal, owned, created = first.split()
    labels = dict(line.partition("=")[::2] for line in rest)
    flags = {"Internal": internal == "1", "Owned": owned == "1"}
    return {"Id": found, "Subnet": chosen, **flags, "Created": float(created), "Labels": labels}


NETWORK = FileKind(
    "network",
    {
        "Id": long_id,
        "Subnet": leases.subnet_in_words,
        "Internal": bool,
        "Owned": bool,
        "Created": moment,
        "Labels": {str: str},
    },
    before=_before,
)


@record
class NamedNetwork:
    """A network with a name.

    Attributes:
        id: 64 hexadecimal digits.
        internal: it has no way out.
        owned: it ends with the program that made it.
        created_s: in seconds since 1970.
    """

    name: str
    id: str
    subnet: Subnet
    internal: bool
    owned: bool
    created_s: float
    labels: Mapping[str, str]

    @property
    def bridge(self) -> str:
        """The bridge's interface name. It says whether there is a way out, see `lease.is_internal`."""
        return f"{leases.INTERNAL if self.internal else 'mb-'}{self.id[:12]}"

    @property
    def gateway(self) -> str:
        """The host's own address on the network."""
        return ipv4.text(self.subnet.first + 1)


def create(
    home: Home,
    name: str = "",
    *,
    internal: bool = False,
    wanted: str = "",
    labels: Mapping[str, str] | None = None,
    owned: bool = False,
) -> tuple[NamedNetwork, int]:
    """Make a network and its bridge.

    Args:
        name: "" to make one up.
        internal: no way out: packets go only between its members and this host.
        wanted: its subnet, ``10.1.2.0/24``; "" to choose a free one.
        owned: the network ends when the returned descriptor is closed.

    Returns:
        The network, and a descriptor that holds its lock; -1 if it isn't owned.

    Raises:
        UsageError: the name, subnet or label is invalid.
        NetworkError: the name or the subnet is taken, or the kernel refused.
    """
    network_id = os.urandom(32).hex()
    name = name or f"net-{network_id[:8]}"
    check_name(name)
    directory = f"{home.root}/networks"
    with trying(NetworkError, f"make the network {name}"):
        os.makedirs(directory, 0o700, exist_ok=True)
        with Lock(directory):
            others = networks(home.root)
            if os.path.lexists(f"{directory}/{name}"):
                raise NetworkError(
                    f"network {name} already exists", f"choose another name, or minibox network rm {name}"
                )
            chosen = _choose(wanted, [each.subnet for each in others], crc32(network_id.encode()))
            made = NamedNetwork(name, network_id, chosen, internal, owned, time(), labels or {})
            place = _place(home.runroot, made, f"{directory}/{name}")
            fd = _write(directory, made)
            try:
                bridge.make(place)
            except BaseException:
                os.close(fd)
                _remove(home, made, force=True)
                raise
    if owned:
        return made, fd
    os.close(fd)
    return made, -1


def check_name(name: str) -> None:
    """Check a network's name.

    Raises:
        UsageError: it is invalid.
    """
    if not 2 <= len(name) <= 128 or not name[0].isalnum() or not _ALPHABET.issuperset(name):
        raise UsageError(
            f"invalid network name {name!r}",
            "use 2 to 128 letters, digits, '_', '.' and '-', and begin with a letter or digit",
        )
    if name in MODES:
        raise UsageError(f"network name {name!r} is a mode of --network", "choose another name")


def find(root: str, name_or_id: str) -> NamedNetwork:
    """Find a network by its name, its id, or the beginning of its id.

    Raises:
        NetworkNotFound: there is none, or more than one.
        Unreadable: there is a network of that name, but its file is damaged.
    """
    if exact := _read(root, name_or_id):
        return exact
    found = [each for each in networks(root) if name_or_id and each.id.startswith(name_or_id)]
    if len(found) != 1:
        what = f"network {name_or_id!r} is ambiguous" if found else f"there is no network {name_or_id!r}"
        raise NetworkNotFound(what, "minibox network ls lists all networks")
    return found[0]


def networks(root: str) -> list[NamedNetwork]:
    """Return all named networks, sorted by name, and report damaged ones (`base.damage`)."""
    found, damaged = look(root)
    for each in damaged:
        damage.tell(each)
    return found


def look(root: str) -> tuple[list[NamedNetwork], list[Unreadable]]:
    """Return all named networks, sorted by name, and the errors for those that can't be read."""
    found, damaged = [], []
    for name in _listed(f"{root}/networks"):
        try:
            if network := _read(root, name):
                found.append(network)
        except Unreadable as error:
            damaged.append(error)
    return found, damaged


def take(
    runroot: str, network: NamedNetwork, container_id: str, before: Callable[[Lease], None] | None = None
) -> Lease:
    """Lease an address on a network's bridge, like `lease.take`."""
    return leases.take(runroot, container_id, network.bridge, network.subnet, before)


def remove(home: Home, network: NamedNetwork, *, force: bool = False) -> None:
    """Remove a network. It is no error if it is gone already.

    Args:
        force: cut off the containers that are still on it.

    Raises:
        NetworkInUse: a container is on it.
        NetworkError: the kernel or nft refuses.
    """
    with trying(NetworkError, f"remove network {network.name}"), suppress(FileNotFoundError):
        with Lock(f"{home.root}/networks"):
            now = _read(home.root, network.name)
            if now and now.id == network.id:
                _remove(home, network, force=force)


def remove_damaged(home: Home, name: str) -> None:
    """Remove a network whose file can't be read, with its bridge. This cuts off the containers on it.

    Raises:
        NetworkError: the kernel or nft refuses.
    """
    path = f"{home.root}/networks/{name}"
    with trying(NetworkError, f"remove network {name}"), suppress(FileNotFoundError):
        with Lock(f"{home.root}/networks"):
            for bridge_name in leases.bridges(home.runroot):
                if leases.network_of(leases.directory(home.runroot, bridge_name)) == path:
                    remove_bridge(home.runroot, bridge_name)
            discard(path)


def restore(home: Home, name: str) -> None:
    """Rebuild a network's file from its bridge; its labels are lost. If it has no bridge, remove it.

    Raises:
        NetworkError: the kernel or nft refuses.
    """
    path = f"{home.root}/networks/{name}"
    with Lock(f"{home.root}/networks"):
        for bridge_name in leases.bridges(home.runroot):
            state = leases.directory(home.runroot, bridge_name)
            chosen = leases.recorded(state)
            if leases.network_of(state) == path and chosen:
                internal = leases.is_internal(bridge_name)
                beginning = bridge_name.removeprefix(leases.INTERNAL if internal else "mb-")
                whole = beginning + os.urandom(32).hex()[len(beginning) :]
                discard(path)
                os.close(_write(os.path.dirname(path), NamedNetwork(name, whole, chosen, internal, False, time(), {})))
                return
    remove_damaged(home, name)


def lost_bridges(home: Home) -> list[str]:
    """Return the bridges whose networks under ``root`` are gone."""
    found = []
    with suppress(FileNotFoundError):
        with Lock(f"{home.root}/networks"):  # a network that is being made has its bridge before its file
            for bridge_name in leases.bridges(home.runroot):
                path = leases.network_of(leases.directory(home.runroot, bridge_name))
                if path.startswith(f"{home.root}/networks/") and not os.path.lexists(path):
                    found.append(bridge_name)
    return found


def remove_bridge(runroot: str, bridge_name: str) -> None:
    """Remove a bridge, and cut off everything on it."""
    state = leases.directory(runroot, bridge_name)
    chosen = leases.recorded(state)
    for address, container_id in leases.leased(state).items():
        if chosen is None:
            raise NetworkError(
                f"remove bridge {bridge_name}: its subnet is not known any more", "a reboot removes the bridge"
            )
        lease = leases.place(runroot, bridge_name, chosen, container_id, address)
        bridge.unwire(lease)
        members.leave(lease)
    bridge.remove_bridge(runroot, bridge_name)


def collect(home: Home) -> list[str]:
    """Remove the networks whose owner was killed, and return their names. Leave one that fails to the next command."""
    gone = []
    for found in look(home.root)[0]:
        if not found.owned:
            continue
        try:
            with open(f"{home.root}/networks/{found.name}", "rb") as file:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(home, found)
            gone.append(found.name)
        except (OSError, NetworkError, Unreadable):
            continue  # it still has an owner, or a container
    return gone


def _remove(home: Home, network: NamedNetwork, *, force: bool) -> None:
    """Remove a network, its file last: if we are killed on the way, it can still be found and removed."""
    state = leases.directory(home.runroot, network.bridge)
    held = leases.leased(state)
    if held and not force:
        raise NetworkInUse(
            f"network {network.name} has {len(held)} container{'s' if len(held) > 1 else ''} on it",
            "remove them first: minibox rm " + " ".join(sorted(each[:12] for each in held.values())),
        )
    remove_bridge(home.runroot, network.bridge)
    os.unlink(f"{home.root}/networks/{network.name}")
    if not network.owned:
        sync_directory(f"{home.root}/networks")


def _place(runroot: str, network: NamedNetwork, path: str) -> Lease:
    """Make the state directory of a network's bridge; return a lease that only describes the bridge."""
    state = leases.directory(runroot, network.bridge)
    os.makedirs(f"{state}/leases", 0o700, exist_ok=True)
    leases.record_subnet(state, network.subnet, path)
    return leases.place(runroot, network.bridge, network.subnet)


def _choose(wanted: str, others: list[Subnet], offset: int) -> Subnet:
    taken = [*subnet.host_subnets(), *others]
    if not wanted:
        return subnet.choose(taken, offset)
    try:
        chosen = ipv4.parse_subnet(wanted)
    except ValueError:
        raise UsageError(f"invalid subnet {wanted!r}", "write it as 10.1.2.0/24") from None
    if not 8 <= chosen.prefix_length <= SMALLEST:
        raise UsageError(f"invalid subnet {wanted!r}: its size must be between /8 and /{SMALLEST}")
    if not subnet.is_free(chosen, taken):
        raise NetworkError(f"subnet {chosen} overlaps one that this host uses already", "ip route shows which")
    return chosen


def _write(directory: str, network: NamedNetwork) -> int:
    """Write a network's file, and return a descriptor with its lock, taken before anybody can see the file."""
    fields = {
        "Id": network.id,
        "Subnet": str(network.subnet),
        "Internal": network.internal,
        "Owned": network.owned,
        "Created": network.created_s,
        "Labels": dict(network.labels),
    }
    return replace_locked(f"{directory}/{network.name}", NETWORK.encode(fields), durable=not network.owned)


def _read(root: str, name: str) -> NamedNetwork | None:
    """Read the network of that name; None if there is none.

    Raises:
        Unreadable: its file is damaged.
    """
    if not _ALPHABET.issuperset(name) or name[:1] in ("", "."):
        return None
    path = f"{root}/networks/{name}"
    try:
        found = NETWORK.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Damaged as error:
        error.hint = f"minibox network rm {name} removes it, and so does minibox system check --repair"
        raise
    chosen = ipv4.parse_subnet(found["Subnet"])
    return NamedNetwork(name, found["Id"], chosen, found["Internal"], found["Owned"], found["Created"], found["Labels"])


def _listed(directory: str) -> list[str]:
    return [name for name in names_in(directory) if not name.startswith(".")]
