"""Lab 9: two containers on a bridge, and a way into the world."""

from __future__ import annotations

from typing import Any

from minibox.lab import inside
from minibox.lab.look import Machine, Process, looked_at, named
from minibox.lab.requirement import require

BRIDGE, GATEWAY = "br0", "10.9.0.1"
ADDRESSES = ("10.9.0.2", "10.9.0.3")
WORLD, OUTSIDE = "192.0.2.1", "192.0.2.2"


def check(machine: Machine) -> None:
    own = machine.init.network()["links"]
    bridge = own.get(BRIDGE)
    require(bridge, f"the machine has no link {BRIDGE}; it has {', '.join(sorted(own))}")
    require(bridge["kind"] == "bridge", f"{BRIDGE} is no bridge, but {bridge['kind'] or 'another kind of link'}")
    require(
        f"{GATEWAY}/24" in bridge["addresses"],
        f"{BRIDGE} has {', '.join(bridge['addresses']) or 'no address'}, not {GATEWAY}/24",
    )
    require(bridge["up"], f"{BRIDGE} is down")
    found = list(machine.apart("net"))
    require(found, "no process has a network namespace of its own: CLONE_NEWNET is missing")
    one_of_each = {process.namespace("net"): process for process in reversed(found)}
    tables = looked_at(sorted(one_of_each.values(), key=lambda each: each.pid), Process.network)
    one, other = (_check_container(tables, address) for address in ADDRESSES)
    require(
        one != other,
        f"{ADDRESSES[0]} and {ADDRESSES[1]} are both in the network namespace of {one}: each needs its own",
    )
    ports = [name for name, link in own.items() if link["master"] == BRIDGE and link["kind"] == "veth"]
    require(
        len(ports) >= 2,
        f"{BRIDGE} has the ports {', '.join(ports) or 'none'}: the other end of each veth pair must be one",
    )
    down = [name for name in ports if not own[name]["up"]]
    require(not down, f"the port {', '.join(down)} of {BRIDGE} is down")
    require(
        inside.reach(one.pid, other.pid, ADDRESSES[1]) == ADDRESSES[0],
        f"a packet from {ADDRESSES[0]} does not reach {ADDRESSES[1]}",
    )
    for process in (one, other):
        _check_world(machine, process)


def _check_container(tables: dict[Process, dict[str, Any]], address: str) -> Process:
    having = [
        process for process, table in tables.items()
        if any(f"{address}/24" in link["addresses"] for link in table["links"].values())
    ]  # fmt: skip
    require(having, f"no process has the address {address}/24 in its network namespace (looked at {named(tables)})")
    process = having[0]
    links = tables[process]["links"]
    link = links.get("eth0")
    require(
        link and f"{address}/24" in link["addresses"],
        f"{process} has {address}/24 on another link than eth0; it has {', '.join(sorted(links))}",
    )
    require(link["kind"] == "veth", f"eth0 of {process} is no veth")
    require(link["up"], f"eth0 of {process} is down")
    routes = tables[process]["routes"]
    require(
        ["default", GATEWAY, "eth0"] in routes, f"{process} has no default route by {GATEWAY}; its routes: {routes}"
    )
    return process


def _check_world(machine: Machine, process: Process) -> None:
    seen = inside.reach(process.pid, machine.helper("world").pid, WORLD)
    require(
        seen,
        f"a packet from {process} does not reach {WORLD}: forwarding (net.ipv4.ip_forward) is off, or a filter drops it",
    )
    require(
        seen == OUTSIDE,
        f"the world sees {seen}, to which it knows no way back, not {OUTSIDE}: masquerade is missing",
    )
