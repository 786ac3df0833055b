"""What a process needs to know to join a running container: its namespaces, ids and cgroup."""

from __future__ import annotations

import os

from minibox.engine.host import ids
from minibox.plan.namespaces import NAMESPACES, on_host
from minibox.plan.parent import systemd_attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.linux.cgroup import Cgroup
    from minibox.oci.runtime import Process
    from minibox.plan.operations import Op

NAMESPACE_FILES = {
    "user": NAMESPACES["user"],
    "mnt": NAMESPACES["mount"],
    "uts": NAMESPACES["uts"],
    "ipc": NAMESPACES["ipc"],
    "pid": NAMESPACES["pid"],
    "net": NAMESPACES["network"],
    "cgroup": NAMESPACES["cgroup"],
    "time": NAMESPACES["time"],
}


def is_ours(kind: str, path: str) -> bool:
    """Is the namespace at ``path`` the one that we are in?

    Args:
        kind: a namespace type of the OCI Spec.
    """
    name = next(name for name, flag in NAMESPACE_FILES.items() if flag == NAMESPACES[kind])
    try:
        return os.path.samefile(path, f"/proc/self/ns/{name}")
    except OSError:
        return False  # it is missing: joining it raises the error


def foreign_namespaces(pid: int) -> int:
    """The clone(2) flags of those namespaces of a process that aren't ours."""
    flags = 0
    for name, flag in NAMESPACE_FILES.items():
        try:
            if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):
                flags |= flag
        except OSError:
            continue  # this kernel doesn't have that type
    return flags


def owner(pid: int, process: Process) -> tuple[int, int]:
    """The uid and gid on the host of a new process in the user namespace of ``pid``."""
    uids, gids = ids.mapped_of(pid)
    return on_host(process["user"]["uid"], uids), on_host(process["user"]["gid"], gids)


def cgroup_joins(group: Cgroup) -> tuple[Op, ...]:
    """The steps that move a process into a cgroup where no process can be created directly."""
    return (systemd_attach(group.unit, group.place, group.v2),) if group.joined else ()
