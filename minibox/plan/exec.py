"""A process in a container that runs -> Plan: `compiler` for ``exec``. Pure, as that is.

The process joins what is there instead of making it. It is seen from inside as soon as it has
joined the container's namespaces, still with everything that it holds of the host: so it hides
itself before (CVE-2016-9962 was that race), enters its cgroup before, and goes on as a child of
minibox's that is born inside the pid namespace.
"""

from __future__ import annotations

from minibox.plan import labels, parent, scheduling
from minibox.plan import operations as op
from minibox.plan.compiler import Plan
from minibox.plan.namespaces import NAMESPACES, dies_with_parent, enter_cgroups, own_ids
from minibox.plan.process import become, session
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
        namespaces: clone(2) flags of those that are not the caller's own.
        chrooted: its root directory is not that of its mount namespace.
        owner: the host's uid of the process.
    """

    namespaces: int
    chrooted: bool = False
    owner: int = 0


def compile_exec(process: Process, joined: Joined, start: Start) -> Plan:
    """Compile an exec.

    Args:
        start: of it the ids, the cgroups, the filter, the terminal and how long it lives count.

    Raises:
        ConfigError: the process asks for something that has no meaning here.
    """
    steps: list[Op] = [parent.clone_further(start.cgroups, not start.cgroup_joins)]
    steps += dies_with_parent(start, "it must not outlive the minibox that owns it")
    steps += scheduling.affinity(process, "initial")
    if start.cgroup_joins:
        steps += [
            op.wait(op.TAG_IDENTITY, "until it is in the container's cgroup"),
            *start.cgroup_joins,
            parent.send(op.TAG_IDENTITY, "the child may go on"),
        ]
    steps += enter_cgroups(start)
    steps += scheduling.affinity(process, "final")
    steps.append(op.undumpable("nobody inside may trace it or look into it before its exec"))
    steps += labels.hosts_proc(process)
    if joined.namespaces:
        steps.append(op.setns(op.NAMESPACES, joined.namespaces, "all of the container's namespaces at once"))
    if joined.chrooted:
        steps.append(op.chroot("its root directory, which its mount namespace doesn't know"))
    if joined.namespaces & NAMESPACES["pid"]:
        steps.append(op.clone_sibling("only a new process is in the pid namespace"))
    if joined.namespaces & NAMESPACES["user"]:
        steps += own_ids(start.setgroups)
    steps += labels.opened(process, start.keyring, joined=True)
    steps += session(process, start, console=False)
    if start.terminal:
        steps.append(parent.take_terminal(joined.owner))
    steps += become(process, start)
    return Plan(tuple(steps), 0)
