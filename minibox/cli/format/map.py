"""`minibox map` as text: the map of `engine.report.map` as sections of nested lines, and those as a tree."""

from __future__ import annotations

from typing import Any

from minibox.cli.format.plan import legible
from minibox.cli.format.units import format_size

#: A line, and the lines below it.
Branch = tuple[str, list[Any]]
IN_A_LINE = 4  # namespaces: what a line of 80 characters can hold
LINK_LOCAL = "fe80:"  # every link has one
MOUNTS_OF_EVERY_CONTAINER = ("/proc", "/sys", "/dev")


def tree(document: dict[str, Any]) -> str:
    """Return the whole map as a tree."""
    host = document["Host"]
    lines = [f"{legible(host['Name'])}: Linux {legible(host['Kernel'])}"]
    below: list[Branch] = [("namespaces", [(line, []) for line in namespaces(host)]), ("links", host_links(host))]
    below += [(title(each), sections(each)) for each in document["Containers"]]
    _draw(below, "", lines)
    return "\n".join(lines)


def _draw(branches: list[Branch], margin: str, lines: list[str]) -> None:
    for number, (text, below) in enumerate(branches, 1):
        last = number == len(branches)
        lines.append(f"{margin}{'└─' if last else '├─'} {text}")
        _draw(below, margin + ("   " if last else "│  "), lines)


def title(container: dict[str, Any]) -> str:
    return legible(f"container {container['Name']} ({container['Id'][:12]}), image {container['Image']}")


def sections(container: dict[str, Any]) -> list[Branch]:
    """Return what there is to say about a container, section by section."""
    found: list[Branch] = [
        ("namespaces", [(line, []) for line in (*namespaces(container), *shared(container))]),
        ("ids", [(line, []) for line in ids(container)]),
        ("processes", processes(container)),
        ("file system", [(line, []) for line in mounts(container)]),
        ("cgroup", [(line, []) for line in cgroup(container)]),
        ("network", [(line, []) for line in links(container)]),
    ]
    return [each for each in found if each[1]]


def namespaces(document: dict[str, Any]) -> list[str]:
    """Return kind and inode of a container's own namespaces, of the host all: a few in each line."""
    shared_ones = document.get("Shared", {})
    own = [f"{kind} {inode}" for kind, inode in document["Namespaces"].items() if kind not in shared_ones]
    return [", ".join(own[first : first + IN_A_LINE]) for first in range(0, len(own), IN_A_LINE)] or ["none of its own"]


def shared(container: dict[str, Any]) -> list[str]:
    """Return whom a container shares namespaces with."""
    by_whom: dict[str, list[str]] = {}
    for kind, names in container["Shared"].items():
        by_whom.setdefault(", ".join(names), []).append(kind)
    return [legible(f"shared with {names}: {', '.join(kinds)}") for names, kinds in by_whom.items()]


def ids(container: dict[str, Any]) -> list[str]:
    return [
        f"{what} {_range(each['containerID'], each['size'])} inside, {_range(each['hostID'], each['size'])} outside"
        for what, key in (("uid", "Uids"), ("gid", "Gids"))
        for each in container[key]
    ]


def _range(first: int, size: int) -> str:
    return str(first) if size == 1 else f"{first}-{first + size - 1}"


def processes(container: dict[str, Any]) -> list[Branch]:
    """Return the process trees; a process whose parent is elsewhere begins one."""
    found: dict[int, Branch] = {}
    top: list[Branch] = []
    for each in container["Processes"]:
        line = f"{each['InnerPid']} (outside {each['Pid']}, uid {each['Uid']}) {each['Command']}"
        found[each["Pid"]] = (legible(line), [])
    for each in container["Processes"]:
        (found[each["Parent"]][1] if each["Parent"] in found else top).append(found[each["Pid"]])
    return top


def mounts(container: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for each in container["Mounts"]:
        path, kind = each["Path"], each["Type"]
        if path == "/":
            layers = ", layers " if container["Layers"] else ""
            short = ", ".join(layer.removeprefix("sha256:")[:12] for layer in container["Layers"])
            lines.insert(0, legible(f"/ is {kind}{layers}{short}"))
        elif not path.startswith(tuple(f"{above}/" for above in MOUNTS_OF_EVERY_CONTAINER)):
            source = f" of {each['Root']}" if each["Root"] != "/" else ""
            access = ", read-only" if "ro" in each["Options"] else ""
            lines.append(legible(f"{path} is {kind}{source}{access}"))
    return lines


def cgroup(container: dict[str, Any]) -> list[str]:
    found, lines = container["Cgroup"], list[str]()
    if found["MemoryBytes"] is not None:
        limit = found["MemoryLimitBytes"]
        lines.append(f"memory {format_size(found['MemoryBytes'])}" + (f" of {format_size(limit)}" if limit else ""))
    if found["CpuNs"] is not None:
        limit = found["CpuLimit"]
        lines.append(f"cpu {found['CpuNs'] / 1e9:.2f} s used" + (f", {limit:g} CPUs at most" if limit else ""))
    if found["Processes"] is not None:
        limit = found["ProcessLimit"]
        lines.append(f"processes {found['Processes']}" + (f" of {limit}" if limit else ""))
    return lines + [legible(path) for path in found["Paths"]]


def links(container: dict[str, Any]) -> list[str]:
    """Return the links and published ports of a container."""
    if "net" in container["Shared"] and not container["Links"]:
        return [legible(f"that of {', '.join(container['Shared']['net'])}")]
    lines = [link(each) for each in container["Links"]]
    return lines + [legible(f"port {each}") for each in container["Ports"]]


def host_links(host: dict[str, Any]) -> list[Branch]:
    """Return the links of the host, ports of bridges below their bridge."""
    names = {each["Name"] for each in host["Links"]}
    below: dict[str, list[Branch]] = {}
    for each in host["Links"]:
        below.setdefault(each["Master"] if each["Master"] in names else "", []).append((link(each), []))
    top = [each for each in host["Links"] if each["Master"] not in names]
    return [(link(each), below.get(each["Name"], [])) for each in top]


def link(found: dict[str, Any]) -> str:
    """Return a link of the host or of a container as a line."""
    addresses = [each for each in found["Addresses"] if not each.startswith(LINK_LOCAL)]
    words = [found["Name"], *([f"({found['Kind']})"] if found["Kind"] else []), *addresses]
    words += [found["State"]] if found["State"] not in ("", "unknown") else []
    return legible(" ".join(words) + (f" <-> {found['Peer']}" if found["Peer"] else ""))
