"""Who makes a container's cgroup: minibox (cgroupfs), or systemd when it is asked to."""

from __future__ import annotations

import os

from minibox.errors import UsageError
from minibox.linux import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.options import RunOptions
    from minibox.linux.cgroup import CgroupHost
    from minibox.oci.runtime import Spec


def cgroup_host(options: RunOptions, spec: Spec, container_id: str, euid: int) -> CgroupHost:
    """Where the container's cgroup is made; its ``linux.cgroupsPath`` says so too.

    Without ``--cgroup-manager`` systemd is asked only where a limit would not be had, or not be kept, otherwise, since
    asking takes 20 to 40 ms and a cgroup of one's own 0.1:

    - an ordinary user is given cgroups by his systemd alone;
    - of root's limits those on CPUs and disks: systemd takes back, at every daemon-reload, the controllers that no
      unit of its own needs, and memory and pids it needs itself.

    Raises:
        LimitError: systemd is asked for, and doesn't run here.
        UsageError: ``--cgroup-manager`` has no such value.
    """
    asked = options.cgroup_manager
    if asked not in ("", "cgroupfs", "systemd"):
        raise UsageError(f"unknown cgroup manager {asked!r}", "one of cgroupfs, systemd")
    host = cgroup.detect()
    if asked == "cgroupfs" or (not asked and not (host.mode == "v2" and _needs_systemd(spec, euid))):
        return host
    from minibox.linux.cgroup.scope import scope_host, usable

    if not asked and not usable(euid, os.environ):
        return host
    host = scope_host(f"minibox-{container_id}.scope", euid=euid, environ=os.environ)
    spec["linux"]["cgroupsPath"] = f"{host.slice}:minibox:{container_id}"  # runc's form for systemd
    return host


def _needs_systemd(spec: Spec, euid: int) -> bool:
    limits = spec["linux"].get("resources", {})
    kinds = ("memory", "cpu", "pids", "blockIO") if euid else ("cpu", "blockIO")
    return any(limits.get(kind) for kind in kinds)
