"""Who makes a container's cgroup: minibox itself (cgroupfs) or systemd."""

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
    options: RunOptions, spec: Spec, container_id: str, euid: int, *, devices: bool
) -> tuple[CgroupHost, tuple[Op, ...]]:
    """Decide where the container's cgroup is made, and how; set ``linux.cgroupsPath`` accordingly.

    Without ``--cgroup-manager``, minibox asks systemd only if a limit needs it. Asking systemd takes a process, two
    D-Bus calls and a move between cgroups; making the cgroup directly takes 0.1 ms. But an ordinary user gets cgroups
    only from the user's systemd, and in root's cgroups systemd turns off the controllers that it didn't turn on itself.

    Args:
        devices: see `cgroup.cgroup_steps`.

    Raises:
        LimitError: the host can't set a limit, or systemd is asked for and isn't running.
        UsageError: ``--cgroup-manager`` has an invalid value.
    """
    asked = options.cgroup_manager
    if asked not in ("", "cgroupfs", "systemd"):
        raise UsageError(f"unknown cgroup manager {asked!r}", "one of cgroupfs, systemd")
    name, resources = f"minibox-{container_id}", spec["linux"].get("resources", {})
    host = cgroup.detect()
    if asked == "systemd" or (not asked and host.mode == "v2" and _needs_systemd(host, resources, euid)):
        from minibox.linux.cgroup.scope import scope_host

        host = scope_host(f"{name}.scope", euid=euid, environ=os.environ)
        spec["linux"]["cgroupsPath"] = f"{host.slice}:minibox:{container_id}"  # runc's form for systemd
    return host, cgroup.cgroup_steps(host, name, resources, devices=devices, in_all=_makes_cgroups(spec))


def _makes_cgroups(spec: Spec) -> bool:
    """Return whether the container can make cgroups, in a hierarchy mounted for it or (like an init system) by itself."""
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
