"""Networks by name: ``root/networks/<name>``, each with a bridge of its own.

The file's first line says all that a start needs, each further one is a label. A network of a program that
embeds minibox ends with it: its file is held with flock, as `engine.ownership` does it for containers, and
`collect` removes one whose lock is free. One of `minibox network create` has no owner, and stays.
"""

from __future__ import annotations

import fcntl
import os
from binascii import crc32
from time import time

from minibox.errors import NetworkError, NetworkInUse, NetworkNotFound, UsageError, kernel_says
from minibox.network import bridge, ipv4, members, subnet
from minibox.network import lease as leases
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from minibox.network.ipv4 import Subnet
    from minibox.network.lease import Lease

MODES = ("none", "host", "bridge", "default", "container")
_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
SMALLEST = 29  # bits of the prefix: 5 members


@record
class NamedNetwork:
    """A network.

    Attributes:
        id: 64 hexadecimal digits.
        internal: it has no way out.
        owned: it ends with a program.
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
        """The interface: its name says whether there is a way out, `lease.is_internal`."""
        return f"{leases.INTERNAL if self.internal else 'mb-'}{self.id[:12]}"

    @property
    def gateway(self) -> str:
        """The host's own address on it."""
        return ipv4.text(self.subnet.first + 1)


def create(
    root: str,
    runroot: str,
    name: str = "",
    *,
    internal: bool = False,
    wanted: str = "",
    labels: Mapping[str, str] | None = None,
    owned: bool = False,
) -> tuple[NamedNetwork, int]:
    """Make a network, and its bridge.

    Args:
        name: "" for one that is made up.
        internal: packets neither leave it nor come in, but from and to this host.
        wanted: its subnet, ``10.1.2.0/24``; "" for one that is free.
        owned: it ends with the descriptor that is returned.

    Returns:
        The network; a descriptor that holds its lock, -1 when nobody owns it.

    Raises:
        UsageError: it can't have that name, subnet or label.
        NetworkError: the name or the subnet is taken, or the kernel refused.
    """
    network_id = os.urandom(32).hex()
    name = name or f"net-{network_id[:8]}"
    check_name(name)
    if any("\n" in text for item in (labels or {}).items() for text in item):
        raise UsageError("a label of a network can't have more than one line")
    directory = f"{root}/networks"
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        with leases.Lock(directory):
            others = networks(root)
            if any(each.name == name for each in others):
                raise NetworkError(
                    f"network {name} already exists", f"choose another name, or minibox network rm {name}"
                )
            chosen = _choose(wanted, [each.subnet for each in others], crc32(network_id.encode()))
            made = NamedNetwork(name, network_id, chosen, internal, owned, time(), labels or {})
            place = _place(runroot, made)
            fd = _write(directory, made)
            try:
                bridge.make(place)
            except BaseException:
                os.close(fd)
                _remove(root, runroot, made, force=True)
                raise
    except OSError as error:
        raise NetworkError(f"make the network {name}: {kernel_says(error)}") from error
    if owned:
        return made, fd
    os.close(fd)
    return made, -1


def check_name(name: str) -> None:
    """Refuse what can't be a network's name.

    Raises:
        UsageError
    """
    if not 2 <= len(name) <= 128 or not name[0].isalnum() or not _ALPHABET.issuperset(name):
        raise UsageError(
            f"invalid network name {name!r}",
            "2 to 128 letters, digits, '_', '.' and '-', the first a letter or digit",
        )
    if name in MODES:
        raise UsageError(f"network name {name!r} is taken by a mode of --network", "choose another")


def find(root: str, name_or_id: str) -> NamedNetwork:
    """The network of that name or id, or whose id begins so.

    Raises:
        NetworkNotFound: there is none, or more than one.
    """
    exact = _read(root, name_or_id)
    if exact:
        return exact
    found = [each for each in networks(root) if name_or_id and each.id.startswith(name_or_id)]
    if len(found) != 1:
        what = "ambiguous" if found else "not there"
        raise NetworkNotFound(f"network {name_or_id!r} is {what}", "minibox network ls lists all of them")
    return found[0]


def networks(root: str) -> list[NamedNetwork]:
    """All networks that have a name, by it."""
    found = [_read(root, name) for name in _listed(f"{root}/networks")]
    return [each for each in found if each]


def take(runroot: str, network: NamedNetwork, container_id: str) -> Lease:
    """As `lease.take`, on the bridge of a network."""
    return leases.take(runroot, container_id, network.bridge, network.subnet)


def remove(root: str, runroot: str, network: NamedNetwork, *, force: bool = False) -> None:
    """Remove a network. One that is gone already is no error.

    Args:
        force: who is on it is cut off.

    Raises:
        NetworkInUse: somebody is on it.
        NetworkError: the kernel or nft refuses.
    """
    try:
        with leases.Lock(f"{root}/networks"):
            now = _read(root, network.name)
            if now and now.id == network.id:
                _remove(root, runroot, network, force=force)
    except FileNotFoundError:
        return
    except OSError as error:
        raise NetworkError(f"remove network {network.name}: {kernel_says(error)}") from error


def collect(root: str, runroot: str) -> list[str]:
    """Remove the networks whose owner was killed; their names. One that resists is left to the next command."""
    gone = []
    for name in _listed(f"{root}/networks"):
        found = _read(root, name)
        if not found or not found.owned:
            continue
        try:
            with open(f"{root}/networks/{name}", "rb") as file:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(root, runroot, found)
            gone.append(name)
        except (OSError, NetworkError):
            continue  # it has an owner, or a container
    return gone


def _remove(root: str, runroot: str, network: NamedNetwork, *, force: bool) -> None:
    """Last its file, so that who is killed on the way leaves one that can be removed."""
    state = leases.directory(runroot, network.bridge)
    held = leases.leased(state)
    if held and not force:
        raise NetworkInUse(
            f"network {network.name} has {len(held)} container{'s' if len(held) > 1 else ''} on it",
            "remove them first: minibox rm " + " ".join(sorted(each[:12] for each in held.values())),
        )
    for address, container_id in held.items():
        lease = leases.place(runroot, network.bridge, network.subnet, container_id, address)
        bridge.unwire(lease)
        members.leave(lease)
    bridge.remove_bridge(runroot, network.bridge)
    os.unlink(f"{root}/networks/{network.name}")


def _place(runroot: str, network: NamedNetwork) -> Lease:
    """The bridge's state, and the lease of nobody on it."""
    state = leases.directory(runroot, network.bridge)
    os.makedirs(f"{state}/leases", 0o700, exist_ok=True)
    with open(f"{state}/subnet", "w", encoding="ascii") as file:
        file.write(str(network.subnet))
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
        raise UsageError(f"invalid subnet {wanted!r}: between /8 and /{SMALLEST}")
    if not subnet.is_free(chosen, taken):
        raise NetworkError(f"subnet {chosen} overlaps one that this host leads to already", "ip route shows which")
    return chosen


def _write(directory: str, network: NamedNetwork) -> int:
    """Write a network's file; a descriptor that holds its lock, as it did before anybody could see it."""
    words = (network.id, network.subnet, int(network.internal), int(network.owned), network.created_s)
    lines = (" ".join(map(str, words)), *(f"{key}={value}" for key, value in network.labels.items()))
    path = f"{directory}/.{network.id}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.write(fd, "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
        if not network.owned:
            os.fsync(fd)
        os.rename(path, f"{directory}/{network.name}")
    except BaseException:
        os.close(fd)
        os.unlink(path)
        raise
    return fd


def _read(root: str, name: str) -> NamedNetwork | None:
    """The network of that name; None when there is none, or its file is damaged."""
    if not _ALPHABET.issuperset(name) or name[:1] in ("", "."):
        return None
    try:
        with open(f"{root}/networks/{name}", encoding="utf-8", errors="surrogateescape") as file:
            first, *rest = file.read().splitlines()
        network_id, chosen, internal, owned, created = first.split()
        labels = dict(line.partition("=")[::2] for line in rest)
        return NamedNetwork(
            name, network_id, ipv4.parse_subnet(chosen), internal == "1", owned == "1", float(created), labels
        )
    except (OSError, ValueError):
        return None


def _listed(directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except FileNotFoundError:
        return []
