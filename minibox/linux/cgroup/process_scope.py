"""A systemd scope that is itself the container's cgroup. Off the hot path."""

from __future__ import annotations

import os

from minibox.base.operation import parent
from minibox.linux.cgroup.creation import pairs, settings
from minibox.linux.cgroup.group import Cgroup
from minibox.linux.cgroup.path import give_step
from minibox.linux.cgroup.scope import own_scope, properties
from minibox.linux.cgroup.steps import FILTER, WRITE, limit_steps
from minibox.linux.cgroup.systemd import Manager
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from minibox.base.operation import Op


@record
class OwnScope:
    """A systemd scope that is itself the container's cgroup: made around its first process, and gone with its last.

    Attributes:
        group: the cgroup, with `Cgroup.joined` set.
        steps: the steps that make it, once there is a process, and set its limits. systemd gets the limits that it has
            properties for. All are also written to the cgroup: systemd doesn't touch what it doesn't know in a
            delegated one.
    """

    group: Cgroup
    steps: tuple[Op, ...]


def own_scope_steps(
    cgroups_path: str, container_id: str, resources: Mapping[str, Any], *, devices: bool = True, owner: int = 0
) -> OwnScope:
    """Return the cgroup that systemd makes once there is a process for it.

    Args:
        cgroups_path: "slice:prefix:name"; "" to use the container's id.
        owner: uid of a user who may make cgroups in it; 0 for nobody.

    Raises:
        ConfigError: the path has another form.
        LimitError: we can't ask systemd here, or a limit can't be applied; says why and what to do.
    """
    host = own_scope(cgroups_path, container_id, euid=os.geteuid(), environ=os.environ)
    directory = f"{host.v2_parent}/{host.scope}"
    limits = limit_steps(host, host.scope, resources, devices=devices, everywhere=True)
    told = tuple(f"{file}={value}" for file, value in settings(limits))
    steps = (
        parent("systemd_own_scope", directory, host.scope, host.slice, told, why="systemd makes it for a process"),
        *(step for step in limits if step.name in (WRITE, FILTER)),
        *((give_step(directory, owner),) if owner else ()),
    )
    return OwnScope(Cgroup(host.scope, {}, directory, joined=True), steps)


def start_own_scope(unit: str, slice_name: str, told: tuple[str, ...], pid: int) -> None:
    """Make systemd create the scope for the process ``pid``.

    Raises:
        MiniboxError: systemd refused.
    """
    with Manager() as manager:
        manager.start_scope(unit, slice_name, properties(pairs(told), others=0), pid)
