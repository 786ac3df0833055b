"""The cgroup of a container: made at `linux.cgroupsPath`, by minibox or by systemd."""

from __future__ import annotations

from minibox.linux import cgroup
from minibox.linux.cgroup.group import shown_hierarchies
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.linux.cgroup import Cgroup, CgroupHost
    from minibox.oci.runtime import Spec
    from minibox.plan.operations import Op


@record
class GroupPlan:
    """A cgroup to be made.

    Attributes:
        group: the cgroup as it will be.
        steps: the steps that make it, before its first process exists.
        joins: the steps that make systemd create it around that process, or move the process there.
    """

    host: CgroupHost
    group: Cgroup
    steps: tuple[Op, ...] = ()
    joins: tuple[Op, ...] = ()


def plan_group(spec: Spec, container_id: str, owner: int, *, by_systemd: bool, rootless: bool) -> GroupPlan:
    """Plan a container's cgroup.

    Args:
        owner: the host's uid of the container's process. It becomes the owner if the container sees the cgroup
            read-write.
        rootless: leave out device rules, which only the host's root can set. If no cgroup can be made and there are no
            limits, leave out the cgroup too.

    Raises:
        ConfigError: cgroupsPath is malformed.
        LimitError: a limit can't be set here, or systemd can't be asked.
    """
    from minibox.linux.cgroup import path as place

    resources = spec["linux"].get("resources", {})
    path = spec["linux"].get("cgroupsPath", "")
    owner = owner if _is_delegated(spec) and not rootless else 0
    if by_systemd:
        from minibox.linux.cgroup import process_scope

        own = process_scope.own_scope_steps(path, container_id, resources, devices=not rootless, owner=owner)
        return GroupPlan(cgroup.CgroupHost("v2", {}), own.group, joins=own.steps)
    found = place.find_place(path, container_id)
    steps = place.place_steps(found, resources, devices=not rootless)
    planned = cgroup.planned(found.host, found.name, steps)
    if owner and planned.v2 and not planned.v1:
        steps = (*steps, place.give_step(planned.v2, owner))
    return GroupPlan(found.host, planned, steps)


def no_group(host: CgroupHost) -> GroupPlan:
    """Return the plan of a container that stays in the caller's cgroup."""
    return GroupPlan(host, cgroup.Cgroup("", {}, ""))


def _is_delegated(spec: Spec) -> bool:
    """Apply the rules of config-linux.md, "Cgroup ownership"."""
    namespaces = spec["linux"].get("namespaces", ())
    return any(each["type"] == "cgroup" and not each.get("path") for each in namespaces) and any(
        mount.get("source") == "cgroup"
        and mount["destination"] == "/sys/fs/cgroup"
        and "ro" not in mount.get("options", ())
        for mount in spec.get("mounts", ())
    )


def shown(plan: GroupPlan, own_view: bool) -> tuple[tuple[str, str, str], ...]:
    """Return what a mount of type cgroup shows; see `plan.compiler.Start.cgroup_mounts`.

    Args:
        own_view: the container has a cgroup namespace. Without one, a new mount would show the host's cgroups, and root
            of a user namespace may not make it, so the container's own directory is bound.
    """
    if not own_view:
        bound = dict.fromkeys(plan.group.v1.values(), "")
        for controller, directory in plan.group.v1.items():
            bound[directory] = ",".join(filter(None, (bound[directory], controller.removeprefix("name="))))
        if plan.host.mode == "v2":
            return (("", "bind", plan.group.v2),) if plan.group.v2 else ()
        return tuple((names, "bind", directory) for directory, names in bound.items())
    return shown_hierarchies(plan.host.mode, plan.group)
