"""`minibox map`: how the host and its containers hang together, as data: namespaces, processes, ids, mounts, cgroups, links.

Everything is read from outside, from /proc, cgroupfs and sysfs, and may have changed a moment later.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from minibox.base.home import Home
from minibox.engine.container import collection
from minibox.engine.container.processes import of_namespace
from minibox.engine.host.ids import mapped_of
from minibox.engine.state import claim, containers
from minibox.engine.state.ports import port_lines
from minibox.errors import ContainerNotRunning, suppress
from minibox.linux import cgroup
from minibox.linux.cgroup import CgroupHost, usage_meter
from minibox.linux.cgroup.host import read_text
from minibox.linux.mount_table import unescaped
from minibox.network.links import Link, links_of, own_links
from minibox.storage.snapshot import read_record

KINDS = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time")
COMMAND_BYTES_MAX = 200
PROCESSES_MAX = 200
Document = dict[str, Any]


def machine_map(home: Home, names: Sequence[str] = ()) -> Document:
    """Return what there is.

    Args:
        names: only these containers; () for all that run.

    Raises:
        ContainerNotFound: there is none of that name.
        ContainerNotRunning: it has no process.
    """
    collection.collect(home)
    ids = [containers.find_id(home.root, name) for name in names] or claim.live_ids(home.root)
    cgroups = cgroup.detect()
    found = []
    for container_id in ids:
        live = containers.owner(home.root, container_id)
        if live and live.pid > 0:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                found.append(_container(home, container_id, live.pid, cgroups))
        elif names:
            raise ContainerNotRunning(f"container {names[ids.index(container_id)]} is not running")
    host: Document = {
        "Name": os.uname().nodename,
        "Kernel": os.uname().release,
        "Namespaces": _namespaces("self"),
        "Links": [_link(each) for each in own_links()],
    }
    found.sort(key=lambda each: str(each["Name"]))
    _tell_shared(host, found)
    _tell_peers(host, found)
    return {"Host": host, "Containers": found}


def _container(home: Home, container_id: str, pid: int, cgroups: CgroupHost) -> Document:
    state = containers.read(home.root, container_id)
    uids, gids = mapped_of(pid)
    namespaces = _namespaces(str(pid))
    own_network = namespaces.get("net") != _namespaces("self").get("net")
    return {
        "Id": container_id,
        "Name": state["Name"],
        "Image": state.get("Image") or "",
        "Pid": pid,
        "Namespaces": namespaces,
        "Uids": uids,
        "Gids": gids,
        "Processes": _processes(pid),
        "Layers": list(reversed((read_record(home.root, container_id) or ("", ()))[1])),
        "Mounts": _mounts(pid),
        "Cgroup": _cgroup(cgroups, container_id, pid),
        "Links": [_link(each) for each in links_of(pid)] if own_network else [],
        "Ports": port_lines(home.root, container_id, ""),
    }


def _namespaces(pid: str) -> dict[str, int]:
    """Return the inode of each namespace of a process; namespaces(7)."""
    found = {}
    for kind in KINDS:
        with suppress(OSError):
            found[kind] = os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    return found


def _tell_shared(host: Document, found: list[Document]) -> None:
    """Add to each container with whom it shares its namespaces: "host", or names of others."""
    for each in found:
        shared: dict[str, list[str]] = {}
        for kind, inode in each["Namespaces"].items():
            others = [other["Name"] for other in found if other is not each and other["Namespaces"].get(kind) == inode]
            shared[kind] = (["host"] if host["Namespaces"].get(kind) == inode else []) + others
        each["Shared"] = {kind: names for kind, names in shared.items() if names}


def _tell_peers(host: Document, found: list[Document]) -> None:
    """Add to each end of a veth between host and container where the other end is."""
    ends = {link["Index"]: link for link in host["Links"]}
    for each in found:
        for link in each["Links"]:
            other = ends.get(link.pop("PeerIndex"))
            if other and other.get("PeerIndex") == link["Index"] and other["Kind"] == link["Kind"] == "veth":
                link["Peer"], other["Peer"] = f"host {other['Name']}", f"{each['Name']} {link['Name']}"
                link["Bridge"] = other["Master"]
    for link in host["Links"]:
        link.pop("PeerIndex")


def _link(link: Link) -> Document:
    return {
        "Name": link.name,
        "Index": link.index,
        "Kind": link.kind,
        "State": link.state,
        "Master": link.master,
        "Addresses": list(link.addresses),
        "PeerIndex": link.peer,
        "Peer": "",
    }


def _processes(first: int) -> list[Document]:
    """Return the processes in the pid namespace of a container, parents before children, with both pids."""
    found = {}
    for pid in sorted(of_namespace(first))[:PROCESSES_MAX]:
        with suppress(OSError, KeyError, ValueError, IndexError):  # it has ended
            status = _status(pid)
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read(COMMAND_BYTES_MAX).rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
            found[pid] = {
                "Pid": pid,
                "InnerPid": int(status["NSpid"].split()[-1]),
                "Parent": int(status["PPid"]),
                "Uid": int(status["Uid"].split()[1]),
                "Command": words or f"[{status['Name']}]",
            }
    return list(found.values())


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace", newline="\n") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def _mounts(pid: int) -> list[Document]:
    found = []
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for line in file:
            fields = line.split(" ")  # names may contain other blanks
            end = fields.index("-", 6)
            found.append(
                {
                    "Path": unescaped(fields[4]),
                    "Type": fields[end + 1],
                    "Source": unescaped(fields[end + 2]),
                    "Root": unescaped(fields[3]),
                    "Options": fields[5].split(","),
                }
            )
    return found


def _cgroup(host: CgroupHost, container_id: str, pid: int) -> Document:
    group = cgroup.find(host, f"minibox-{container_id}")
    usage = group.usage()
    memory_bytes, memory_limit = usage_meter.memory(group)
    return {
        "Paths": sorted(set(group.directories)),
        "MemoryBytes": memory_bytes,
        "MemoryLimitBytes": memory_limit or None,
        "CpuNs": usage.cpu_ns,
        "CpuLimit": _cpus(group.directories),
        "Processes": usage.pids,
        "ProcessLimit": _first_number(group.directories, "pids.max"),
    }


def _cpus(directories: Sequence[str]) -> float | None:
    """Return how many CPUs a cgroup may use; None for no limit."""
    for directory in directories:
        quota, _, period = _text(f"{directory}/cpu.max").partition(" ")
        if not quota:
            quota, period = _text(f"{directory}/cpu.cfs_quota_us"), _text(f"{directory}/cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):
            return int(quota) / int(period)
    return None


def _first_number(directories: Sequence[str], name: str) -> int | None:
    texts = (_text(f"{directory}/{name}") for directory in directories)
    return next((int(text) for text in texts if text.isdecimal()), None)


def _text(path: str) -> str:
    try:
        return read_text(path).strip()
    except OSError:
        return ""
