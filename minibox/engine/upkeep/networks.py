"""Manage networks and the containers on them: create, remove, connect, disconnect, list, inspect."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from minibox.base import damage
from minibox.base.files import closing
from minibox.base.lock import Lock
from minibox.base.values import has_label
from minibox.docker_words.filters import lets_prune, parse_truth
from minibox.engine.container.lifecycle import Process
from minibox.engine.process.undo_list import write_more
from minibox.engine.resources import container_network
from minibox.engine.spec.compile import FILES
from minibox.engine.spec.options import from_given
from minibox.engine.state import claim, events
from minibox.engine.state import containers as state
from minibox.errors import (
    ContainerNotFound,
    ContainerNotRunning,
    Damaged,
    NetworkError,
    NetworkInUse,
    NetworkNotFound,
    Unreadable,
    UsageError,
    suppress,
)
from minibox.network import bridge, etc_files, lease, members, name_server, named, partition
from minibox.plan.parent import hold_address, undo_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from minibox.base.home import Home
    from minibox.docker_words.filters import Filter
    from minibox.network.lease import Lease
    from minibox.network.named import NamedNetwork

DRIVER = "bridge"
DEFAULT = "bridge"  # the name of the default network
LIST_KEYS = ("driver", "id", "label", "name", "scope", "type", "dangling")
PRUNE_KEYS = ("label", "label!", "until")


def create(
    home: Home,
    name: str = "",
    *,
    internal: bool = False,
    subnet: str = "",
    labels: Sequence[str] = (),
    owned: bool = False,
) -> tuple[NamedNetwork, int]:
    """Make a network. For arguments and result see `named.create`.

    Raises:
        Unsupported: the caller is an ordinary user.
        UsageError, NetworkError: as in `named.create`.
    """
    if os.geteuid():
        container_network.refuse_rootless("a container network")
    named.collect(home)
    given = dict(label.partition("=")[::2] for label in labels)
    made, fd = named.create(home, name, internal=internal, wanted=subnet, labels=given, owned=owned)
    events.note_network(home.runroot, made.id, made.name, "create")
    return made, fd


def remove(home: Home, name_or_id: str, *, force: bool = False) -> None:
    """Remove a network.

    Args:
        force: don't fail if it doesn't exist.

    Raises:
        NetworkNotFound, NetworkInUse, NetworkError: as the names say.
        UsageError: it is one of the built-in networks.
    """
    if name_or_id in named.MODES:
        raise UsageError(f"network {name_or_id} is built in and can't be removed")
    try:
        network = named.find(home.root, name_or_id)
    except NetworkNotFound:
        if force:
            return
        raise
    except Damaged:
        named.remove_damaged(home, name_or_id)
        return
    if network.owned and network.name not in named.collect(home):
        raise NetworkInUse(
            f"network {network.name} is in use by a running program", "it is removed when the program ends"
        )
    named.remove(home, network)
    events.note_network(home.runroot, network.id, network.name, "destroy")


def end(home: Home, network: NamedNetwork) -> None:
    """Remove a network for its owner; containers on it are cut off."""
    named.remove(home, network, force=True)
    events.note_network(home.runroot, network.id, network.name, "destroy")


def prune(home: Home, filters: Sequence[Filter] = ()) -> list[str]:
    """Remove networks that no container uses or will use when it is started; return their names."""
    gone = named.collect(home)
    wanted = {name for found in state.containers(home.root) for name in _named_by(home.root, found)}
    for network in named.networks(home.root):
        if network.owned or network.name in wanted or not lets_prune(dict(network.labels), network.created_s, filters):
            continue
        try:
            named.remove(home, network)
        except NetworkInUse:
            continue
        events.note_network(home.runroot, network.id, network.name, "destroy")
        gone.append(network.name)
    return gone


def _named_by(root: str, found: dict[str, Any]) -> list[str]:
    """Return the names of the networks that a container uses or will use."""
    try:
        changed = container_network.read_joined(f"{root}/containers/{found['Id']}")
    except Unreadable as error:
        damage.tell(error)
        changed = None
    if changed is not None:
        return [name for name, _ in changed]
    options = found.get("Options")
    return [str(options.get("network") or DEFAULT)] if isinstance(options, dict) else []


# ---- connect and disconnect -----------------------------------------------------------------------


def connect(home: Home, network_name: str, container_name: str, *, aliases: Sequence[str] = ()) -> Lease | None:
    """Connect a container to another network; if it is running, at once. Return its lease; None if it isn't running.

    Raises:
        NetworkNotFound, ContainerNotFound: one of them doesn't exist.
        UsageError: it is already connected, or uses the host's network.
        NetworkError: the kernel or nft refuses.
    """
    container_network.check_aliases(aliases, "--alias")
    network = _find(home.root, network_name)
    name = network.name if network else DEFAULT
    container_id = state.find_id(home.root, container_name)
    with _lock(home.root, container_id):
        found = state.read(home.root, container_id)
        _check_mode(found, container_name)
        joined = _joined(home.root, found)
        if any(each == name for each, _ in joined):
            raise UsageError(f"container {container_name} is already on the network {name}")
        held = None
        with suppress(ContainerNotRunning):
            with Process(home.root, container_id, "connect") as process:
                held = _wire(home, network, found, aliases, process)
        container_network.write_joined(f"{home.root}/containers/{container_id}", [*joined, (name, aliases)])
    events.note_network(home.runroot, network.id if network else name, name, "connect", container=container_id)
    return held


def disconnect(home: Home, network_name: str, container_name: str, *, force: bool = False) -> None:
    """Disconnect a container from a network; if it is running, remove its link and names at once.

    Args:
        force: don't fail if it isn't connected.

    Raises:
        NetworkNotFound, ContainerNotFound: one of them doesn't exist.
        UsageError: it isn't connected, or uses the host's network.
        NetworkError: the kernel or nft refuses.
    """
    network = _find(home.root, network_name)
    name = network.name if network else DEFAULT
    container_id = state.find_id(home.root, container_name)
    bridge_name = network.bridge if network else lease.bridge_name(home.runroot)
    with _lock(home.root, container_id):
        found = state.read(home.root, container_id)
        _check_mode(found, container_name)
        joined = _joined(home.root, found)
        leases = lease.of(home.runroot, container_id)
        held = next((each for each in leases if each.bridge == bridge_name), None)
        if held is None and all(each != name for each, _ in joined):
            if force:
                return
            raise UsageError(f"container {container_name} is not on the network {name}")
        if held:
            bridge.unwire(held)
            members.leave(held)
            _find_way_out(home.root, container_id, [each for each in leases if each is not held])
        left = [each for each in joined if each[0] != name]
        container_network.write_joined(f"{home.root}/containers/{container_id}", left)
    events.note_network(home.runroot, network.id if network else name, name, "disconnect", container=container_id)


def _lock(root: str, container_id: str) -> Lock:
    """Lock the record of a container's networks.

    Raises:
        ContainerNotFound: it was removed in the meantime.
    """
    directory = f"{root}/containers/{container_id}"
    if not os.path.isdir(directory):
        raise ContainerNotFound(f"container {container_id[:12]!r} was removed")
    return Lock(directory)


def _find(root: str, name: str) -> NamedNetwork | None:
    return None if name == DEFAULT else named.find(root, name)


def _check_mode(found: dict[str, Any], name: str) -> None:
    if os.geteuid():
        container_network.refuse_rootless("a container network")
    options = found.get("Options")
    if isinstance(options, dict) and options.get("network") == "host":
        raise UsageError(f"container {name} uses the host's network, so it can't join another")


def _wire(
    home: Home, network: NamedNetwork | None, found: dict[str, Any], aliases: Sequence[str], process: Process
) -> Lease:
    container_id, pid = process.id, process.live.pid

    def note(free: Lease) -> None:
        # Write this first: if we are killed in between, the container's end must give it back, too.
        address = hold_address(free.state, free.address, container_id)
        write_more(f"{home.root}/containers/{container_id}", undo_list((address,)))

    if network:
        held = named.take(home.runroot, network, container_id, note)
    else:
        held = lease.take(home.runroot, container_id, before=note)
    try:
        with closing(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as netns:
            if os.path.samestat(os.fstat(netns), os.stat("/proc/thread-self/ns/net")):
                raise UsageError(f"container {found['Name']} uses the host's network, so it can't join another")
            bridge.wire(held, netns, bridge.free_interface(netns))
        _make_known(home, held if network else None, found, aliases, process)
    except BaseException:
        bridge.unwire(held)
        members.leave(held)
        raise
    return held


def _make_known(
    home: Home, joined: Lease | None, found: dict[str, Any], aliases: Sequence[str], process: Process
) -> None:
    """Give a container its names on the network that it has joined, and a name server if it is its first with names.

    Args:
        joined: None for the default network, which has no names.
    """
    container_id = process.id
    held = lease.of(home.runroot, container_id)
    if joined is None and not any(members.is_known(each) for each in held):
        return
    for each in held:
        if joined and each.bridge == joined.bridge:
            members.join(each, (found["Name"], *aliases, container_id[:12]))
        elif each.bridge == lease.bridge_name(home.runroot):
            members.join(each, ())  # the name server knows by it that the container has a way out
    given = found.get("Options")
    options = from_given(given if isinstance(given, dict) else {"image": ""})
    name_server.serve_running(
        home.runroot, container_id, process.live.pid, process.pidfd, name_server.servers(options.dns)
    )
    text = container_network.resolv_conf(options, options.dns, names=True)
    with suppress(OSError):  # the container may have done anything to it, and needs it for itself alone
        etc_files.rewrite(f"{home.root}/containers/{container_id}/{FILES['/etc/resolv.conf']}", text)


def _find_way_out(root: str, container_id: str, leases: Sequence[Lease]) -> None:
    """If the default route went with a link, set one through another network that isn't internal."""
    way = next((each for each in leases if not each.internal), None)
    if way is None:
        return
    with suppress(ContainerNotRunning):
        with Process(root, container_id, "disconnect") as process:
            with closing(os.open(f"/proc/{process.live.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as netns:
                bridge.route_out(way, netns)


def _joined(root: str, found: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """Return a container's networks, current or for its next start, with its aliases on each.

    Raises:
        Unreadable: the record is damaged.
    """
    joined = container_network.read_joined(f"{root}/containers/{found['Id']}")
    if joined is not None:
        return joined
    options = found.get("Options")
    options = options if isinstance(options, dict) else {}
    first = str(options.get("network") or DEFAULT)
    return [(first, tuple(options.get("network_alias", ())))] if first not in ("none", "host") else []


# ---- partition ------------------------------------------------------------------------------------


def cut(home: Home, network: NamedNetwork, groups: Iterable[Iterable[str]]) -> None:
    """Drop packets between containers of different groups; see `minibox.network.partition`.

    Args:
        groups: ids of containers.

    Raises:
        NetworkError: a container isn't on the network, or the kernel or nft refuses.
    """

    def port(container_id: str) -> str:
        for held in lease.of(home.runroot, container_id):
            if held.bridge == network.bridge:
                return lease.veth_name(held)
        raise NetworkError(f"container {container_id[:12]} is not on the network {network.name}")

    partition.cut(home.runroot, network.bridge, [{port(each) for each in group} for group in groups])


def heal(runroot: str, network: NamedNetwork) -> None:
    """Stop dropping packets."""
    partition.heal(runroot, network.bridge)


def address_on(runroot: str, network: NamedNetwork, container_id: str) -> str | None:
    """Return a container's address on a network; None if it has none."""
    return next((each.address for each in lease.of(runroot, container_id) if each.bridge == network.bridge), None)


# ---- list and inspect -----------------------------------------------------------------------------


def listed(home: Home, filters: Sequence[Filter] = ()) -> list[dict[str, Any]]:
    """Return all networks in the format of `inspect`: the default one, host, none, and named ones."""
    named.collect(home)
    found = [_builtin(home, name) for name in ("bridge", "host", "none")]
    found += [document(home, each) for each in named.networks(home.root)]
    return sorted((each for each in found if _fits(each, filters)), key=lambda each: str(each["Name"]))


def inspect(home: Home, name_or_id: str) -> dict[str, Any]:
    """Return everything about a network, with Docker's fields.

    Raises:
        NetworkNotFound: there is none.
    """
    if name_or_id in ("bridge", "host", "none"):
        return _builtin(home, name_or_id)
    return document(home, named.find(home.root, name_or_id))


def _builtin(home: Home, name: str) -> dict[str, Any]:
    subnet, gateway, containers = "", "", {}
    driver = {"bridge": DRIVER, "host": "host", "none": "null"}[name]
    if name == "bridge":
        bridge_name = lease.bridge_name(home.runroot)
        chosen = lease.recorded(lease.directory(home.runroot, bridge_name))
        if chosen:
            place = lease.place(home.runroot, bridge_name, chosen)
            subnet, gateway = place.subnet, place.gateway
            containers = _containers(home, bridge_name, place.prefix_length)
    return _document(name, name, driver, subnet, gateway, containers, created_s=0.0, internal=False, labels={})


def document(home: Home, network: NamedNetwork) -> dict[str, Any]:
    """Return the output of `network inspect` for a named network."""
    containers = _containers(home, network.bridge, network.subnet.prefix_length)
    return _document(
        network.name, network.id, DRIVER, str(network.subnet), network.gateway, containers,
        created_s=network.created_s, internal=network.internal, labels=dict(network.labels),
    )  # fmt: skip


def _document(
    name: str,
    network_id: str,
    driver: str,
    subnet: str,
    gateway: str,
    containers: dict[str, Any],
    *,
    created_s: float,
    internal: bool,
    labels: dict[str, str],
) -> dict[str, Any]:
    created = datetime.fromtimestamp(created_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    config = [{"Subnet": subnet, "Gateway": gateway}] if subnet else []
    return {
        "Name": name, "Id": network_id, "Created": created, "Scope": "local", "Driver": driver, "EnableIPv4": True,
        "EnableIPv6": False, "IPAM": {"Driver": "default", "Options": None, "Config": config}, "Internal": internal,
        "Attachable": False, "Ingress": False, "ConfigFrom": {"Network": ""}, "ConfigOnly": False,
        "Containers": containers, "Options": {}, "Labels": labels,
    }  # fmt: skip


def _containers(home: Home, bridge_name: str, prefix_length: int) -> dict[str, Any]:
    found = {}
    for address, container_id in sorted(lease.leased(lease.directory(home.runroot, bridge_name)).items()):
        if not claim.is_live(home.root, container_id):
            continue
        found[container_id] = {
            "Name": state.read(home.root, container_id)["Name"],
            "EndpointID": "",
            "MacAddress": lease.mac(address).hex(":"),
            "IPv4Address": f"{address}/{prefix_length}",
            "IPv6Address": "",
        }
    return found


def places(home: Home, container_id: str) -> dict[str, tuple[Lease, list[str]]]:
    """Return a running container's networks: for each name its lease, and the container's names there."""
    names = {each.bridge: each.name for each in named.networks(home.root)}
    return {
        names.get(each.bridge, DEFAULT): (each, members.names_of(each)) for each in lease.of(home.runroot, container_id)
    }


def _fits(found: dict[str, Any], filters: Sequence[Filter]) -> bool:
    """Return whether a network passes: one value of each key must match."""
    builtin = found["Name"] in ("bridge", "host", "none")

    def fits(each: Filter) -> bool:
        if each.key in ("name", "id"):
            return each.value in str(found[each.key.capitalize()])
        if each.key == "driver":
            return each.value == str(found["Driver"])
        if each.key == "scope":
            return each.value == "local"
        if each.key == "type":
            return each.value == ("builtin" if builtin else "custom")
        if each.key == "dangling":
            return parse_truth(each.value) is not (builtin or bool(found["Containers"]))
        return has_label(found["Labels"], each.value)

    return all(any(fits(other) for other in filters if other.key == each.key) for each in filters)
