"""A scope of systemd's that is a container's cgroup itself. Off the hot path."""

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
    """A scope of systemd's that is a container's cgroup itself, made around its first process; it goes with the last.

    Attributes:
        group: it; `Cgroup.joined`.
        steps: what makes it, once there is a process, and gives it its limits: systemd is told those that it has
            properties for; all are written to the cgroup too, since it leaves alone, in what it has delegated, what
            it knows nothing of.
    """

    group: Cgroup
    steps: tuple[Op, ...]


def own_scope_steps(
    cgroups_path: str, container_id: str, resources: Mapping[str, Any], *, devices: bool = True, owner: int = 0
) -> OwnScope:
    """The cgroup that systemd makes once there is a process to put into it.

    Args:
        cgroups_path: "slice:prefix:name"; "" for one by the container's id.
        owner: as of `make_at`.

    Raises:
        ConfigError: it has another form.
        LimitError: systemd can't be asked here, or a limit can't be applied: says why, and what to do.
    """
    host = own_scope(cgroups_path, container_id, euid=os.geteuid(), environ=os.environ)
    directory = f"{host.v2_parent}/{host.scope}"
    limits = limit_steps(host, host.scope, resources, devices=devices, everywhere=True)
    told = tuple(f"{file}={value}" for file, value in settings(limits))
    steps = (
        parent("systemd_own_scope", directory, host.scope, host.slice, told, why="systemd makes it of a process"),
        *(step for step in limits if step.name in (WRITE, FILTER)),
        *((give_step(directory, owner),) if owner else ()),
    )
    return OwnScope(Cgroup(host.scope, {}, directory, joined=True), steps)


def start_own_scope(unit: str, slice_name: str, told: tuple[str, ...], pid: int) -> None:
    """Have systemd make the scope of the process ``pid``.

    Raises:
        MiniboxError: systemd refused.
    """
    with Manager() as manager:
        manager.start_scope(unit, slice_name, properties(pairs(told), others=0), pid)
