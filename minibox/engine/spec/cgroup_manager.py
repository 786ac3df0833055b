"""Who makes a container's cgroup: minibox (cgroupfs), or systemd when it is asked to."""

from __future__ import annotations

import os

from minibox.errors import UsageError
from minibox.linux import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.spec.options import RunOptions
    from minibox.linux.cgroup import CgroupHost
    from minibox.oci.runtime import LinuxResources, Spec
    from minibox.plan.operations import Op


def plan_cgroup(
    options: RunOptions, spec: Spec, container_id: str, euid: int, *, devices: bool, host: CgroupHost | None = None
) -> tuple[CgroupHost, tuple[Op, ...]]:
    """Where the container's cgroup is made, and how; ``linux.cgroupsPath`` says so too.

    Without ``--cgroup-manager`` systemd is asked only for a limit that would not be had, or not be kept, otherwise:
    asking takes a process, two calls by D-Bus and a move between cgroups, and a cgroup of one's own 0.1 ms. An ordinary user is given cgroups by his systemd
    alone; and of root's controllers systemd keeps those that it has turned on itself.

    Args:
        devices: as in `cgroup.cgroup_steps`.
        host: what `cgroup.detect` has said just now.

    Raises:
        LimitError: a limit can't be had here; or systemd is asked for, and doesn't run here.
        UsageError: ``--cgroup-manager`` has no such value.
    """
    asked = options.cgroup_manager
    if asked not in ("", "cgroupfs", "systemd"):
        raise UsageError(f"unknown cgroup manager {asked!r}", "one of cgroupfs, systemd")
    name, resources = f"minibox-{container_id}", spec["linux"].get("resources", {})
    host = host or cgroup.detect()
    if asked == "systemd" or (not asked and host.mode == "v2" and _needs_systemd(host, resources, euid)):
        from minibox.linux.cgroup.scope import scope_host

        host = scope_host(f"{name}.scope", euid=euid, environ=os.environ)
        spec["linux"]["cgroupsPath"] = f"{host.slice}:minibox:{container_id}"  # runc's form for systemd
    return host, cgroup.cgroup_steps(host, name, resources, devices=devices, in_all=_makes_cgroups(spec))


def _makes_cgroups(spec: Spec) -> bool:
    """Can it make cgroups, where they are mounted for it or where it mounts them itself, as an init system does?"""
    if "CAP_SYS_ADMIN" in spec["process"].get("capabilities", {}).get("bounding", ()):
        return True
    return any(
        mount.get("type") == "cgroup" and "ro" not in mount.get("options", ()) for mount in spec.get("mounts", ())
    )


def _needs_systemd(host: CgroupHost, resources: LinuxResources, euid: int) -> bool:
    needed = cgroup.v2_controllers(resources)
    if not needed or (not euid and needed.issubset(host.v2_enabled)):
        return False
    from minibox.linux.cgroup.scope import usable

    return usable(euid, os.environ)
