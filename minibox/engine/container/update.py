"""Change the limits and the restart policy of an existing container: `update`."""

from __future__ import annotations

import os

from minibox.base.lock import Lock
from minibox.base.operation import PARENT, Op
from minibox.engine.container import restart_policy
from minibox.engine.container.lifecycle import Process
from minibox.engine.process.undo_list import write_more
from minibox.engine.spec.host import host_facts
from minibox.engine.spec.limits import CPU_PERIOD_US, resources
from minibox.engine.spec.options import RunOptions, from_given, in_words
from minibox.engine.state import containers, events
from minibox.errors import ContainerNotRunning, UsageError
from minibox.linux import cgroup
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.base.home import Home
    from minibox.linux.cgroup import Cgroup, CgroupHost

SHARES_DEFAULT = 1024
MEMORY = ("memory_bytes", "memory_swap_bytes")
QUOTA = ("cpus", "cpu_quota_us", "cpu_period_us")
SETS = {"cpuset_cpus": "cpus", "cpuset_mems": "mems"}
CHANGEABLE = (
    *(*MEMORY, "memory_reservation_bytes", *QUOTA, "cpu_shares", *SETS),
    *("blkio_weight", "pids_limit", "restart"),
)


def update(home: Home, name_or_id: str, changes: dict[str, Any]) -> str:
    """Change the limits of a container, at once if it runs, and for its next starts. Return its id.

    Args:
        changes: members of `RunOptions` that are in `CHANGEABLE`. 0 removes a limit.

    Raises:
        ContainerNotFound: there is no such container.
        UsageError: a limit is invalid.
        LimitError: a limit can't be set here, or the container uses more already. Nothing has changed then.
    """
    found = containers.find(home.root, name_or_id)
    container_id: str = found["Id"]
    if found["Status"] == "damaged":
        raise UsageError(f"container {name_or_id} can't be updated: its state is damaged", "minibox rm removes it")
    remembered = isinstance(found.get("Options"), dict)
    before = from_given(found["Options"]) if remembered else RunOptions(image=found["Image"], rm=True)
    after: RunOptions = replace(before, **changes)
    restart_policy.check(after)
    asked = live_resources(after, changes)
    if asked:
        try:
            with Process(home.root, container_id, "update") as process:
                _apply(process, asked, f"{home.root}/containers/{container_id}")
        except ContainerNotRunning:
            if not remembered:
                raise
    if remembered:
        containers.change(home.root, container_id, lambda now: _remember(now, changes), durable=True)
    events.note_container(home.runroot, found, "update")
    return container_id


def _remember(found: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {**found, "Options": {**found["Options"], **in_words(changes)}}


def live_resources(after: RunOptions, changes: dict[str, Any]) -> dict[str, Any]:
    """The ``linux.resources`` for the changes. A removed limit is set to "no limit".

    Raises:
        UsageError: a limit is invalid.
    """
    facts = host_facts(swap_limit=False)
    wanted: dict[str, Any] = dict(resources(after, facts))
    asked: dict[str, Any] = {}
    memory = dict(wanted.get("memory") or {})
    reservation = memory.pop("reservation", 0)
    if any(key in changes for key in MEMORY):
        asked["memory"] = memory or {"limit": -1, "swap": -1}
    if "memory_reservation_bytes" in changes:
        asked.setdefault("memory", {})["reservation"] = reservation
    cpu = dict(wanted.get("cpu") or {})
    if not any(key in changes for key in QUOTA):
        cpu = {key: value for key, value in cpu.items() if key not in ("quota", "period")}
    elif "quota" not in cpu:
        cpu = {"quota": -1, "period": CPU_PERIOD_US, **cpu}
    if "cpu_shares" not in changes:
        cpu.pop("shares", None)
    else:
        cpu.setdefault("shares", SHARES_DEFAULT)
    for option, key in SETS.items():
        if option not in changes:
            cpu.pop(key, None)
        else:
            cpu.setdefault(key, "")
    if cpu:
        asked["cpu"] = cpu
    if "blkio_weight" in changes:
        asked["blockIO"] = wanted.get("blockIO") or {"weight": 0}
    if "pids_limit" in changes:
        asked["pids"] = wanted.get("pids") or {"limit": -1}
    return asked


def _apply(process: Process, asked: dict[str, Any], directory: str) -> None:
    from minibox.linux.cgroup.update import change

    group = process.group
    host = _host_of(group)
    more = dict.fromkeys(f"{parent}/{group.name}" for parent in host.hierarchies.values())
    added = [path for path in more if path not in group.directories]
    # Write this first: if we are killed in between, `collect` must know what to remove.
    with Lock(directory):
        write_more(directory, (Op("cgroup_rmdir", (path,), "a new limit needs it", PARENT) for path in added))
    change(host, group, asked, unit=host.scope)


def _host_of(group: Cgroup) -> CgroupHost:
    """The host that made the cgroup: minibox itself, or systemd's scope above it."""
    scope = f"{group.name}.scope"
    if os.path.basename(os.path.dirname(group.v2)) == scope:
        from minibox.linux.cgroup.scope import scope_host

        return scope_host(scope, euid=os.geteuid(), environ=os.environ)
    return cgroup.detect()
