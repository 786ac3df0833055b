"""Compile a process in a running container to a Plan: `compiler` for ``exec``. Pure, too.

The process joins the container's namespaces instead of making new ones. Processes inside can see it as soon as it has
joined, while it still holds descriptors of the host. So it first hides itself (CVE-2016-9962 was that race) and enters
its cgroup, and then continues as a child of minibox that is born inside the pid namespace.
"""

from __future__ import annotations

from minibox.plan import labels, parent, scheduling
from minibox.plan import operations as op
from minibox.plan.compiler import Plan
from minibox.plan.namespaces import NAMESPACES, dies_with_parent, enter_cgroups, own_ids
from minibox.plan.process import ROOT_USER, become, session
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.oci.runtime import Process
    from minibox.plan.operations import Op
    from minibox.plan.start import Start


@record
class Joined:
    """The container that a process joins.

    Attributes:
        namespaces: clone(2) flags of the namespaces that aren't the caller's own.
        chrooted: its root directory isn't the root of its mount namespace.
        owner: the host's uid of the process.
    """

    namespaces: int
    chrooted: bool = False
    owner: int = 0


def compile_exec(process: Process, joined: Joined, start: Start) -> Plan:
    """Compile an exec.

    Args:
        start: only its ids, cgroups, filter, terminal and lifetime matter.

    Raises:
        ConfigError: the process is invalid.
    """
    steps: list[Op] = [parent.clone_further(start.cgroups, not start.cgroup_joins)]
    steps += dies_with_parent(start, "it must not outlive its minibox")
    steps += scheduling.affinity(process, "initial")
    if start.cgroup_joins:
        steps += [
            op.wait(op.TAG_IDENTITY, "wait until it is in the container's cgroup"),
            *start.cgroup_joins,
            parent.send(op.TAG_IDENTITY, "the child may go on"),
        ]
    steps += enter_cgroups(start)
    steps += scheduling.affinity(process, "final")
    steps.append(op.undumpable("no process inside may trace or inspect it before its exec"))
    steps += labels.hosts_proc(process)
    if joined.namespaces:
        steps.append(op.setns(op.NAMESPACES, joined.namespaces, "join all namespaces of the container at once"))
    if joined.chrooted:
        steps.append(op.chroot("the container's root isn't the root of its mount namespace"))
    if joined.namespaces & NAMESPACES["pid"]:
        steps.append(op.clone_sibling("only a new process can be in the pid namespace"))
    if joined.namespaces & NAMESPACES["user"]:
        user = process.get("user", ROOT_USER)
        # In a namespace with a single id, only that user can be: root, or the caller (`minibox try`).
        steps += own_ids(start.setgroups, *((0, 0) if start.setgroups else (user["uid"], user["gid"])))
    steps += labels.opened(process, start.keyring, joined=True)
    steps += session(process, start, console=False)
    if start.terminal:
        steps.append(parent.take_terminal(joined.owner))
    steps += become(process, start)
    return Plan(tuple(steps), 0)
