"""A scope of systemd's that is a container's cgroup itself. Off the hot path."""

from __future__ import annotations

import os

from minibox.linux.cgroup.creation import make, settings
from minibox.linux.cgroup.group import Cgroup
from minibox.linux.cgroup.place import give
from minibox.linux.cgroup.scope import own_scope, properties
from minibox.linux.cgroup.steps import limit_steps
from minibox.linux.cgroup.systemd import Manager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from minibox.linux.cgroup.host import CgroupHost
    from minibox.linux.cgroup.steps import CgroupStep


class ProcessScope:
    """A scope that is a container's cgroup itself, made around its first process; it goes with the last.

    Args:
        steps: the limits, of which systemd is told those that it has properties for. All are written to the cgroup
            too: systemd leaves alone, in what it has delegated, what it knows nothing of.
        owner: as of `place.make_at`.
    """

    is_made = False

    def __init__(
        self, host: CgroupHost, steps: tuple[CgroupStep, ...], resources: Mapping[str, Any], owner: int = 0
    ) -> None:
        self._host, self._steps, self._resources, self._owner = host, steps, resources, owner

    def join(self, name: str, pid: int, _below: str = "") -> None:
        """Have systemd make the scope ``name`` of the process ``pid``, and set the limits.

        Raises:
            MiniboxError: systemd refused.
            LimitError: the kernel refused a limit.
        """
        told = properties(settings(self._steps), others=0)
        with Manager() as manager:
            manager.start_scope(name, self._host.slice, told, pid)
        self.is_made = True
        own = tuple(step for step in self._steps if step.op in ("write", "device_filter"))
        make(self._host, name, own, self._resources)
        give(Cgroup(name, {}, f"{self._host.v2_parent}/{name}"), self._owner)

    def hand_over(self) -> None:
        """Nothing is left to do: no process holds it but the container's."""

    def close(self) -> None:
        """Nothing is left to do: systemd removes it once it is empty."""


def make_scope(
    cgroups_path: str, container_id: str, resources: Mapping[str, Any], *, devices: bool = True, owner: int = 0
) -> Cgroup:
    """The cgroup that systemd makes once there is a process to put into it: by `Cgroup.join`.

    Args:
        cgroups_path: "slice:prefix:name"; "" for one by the container's id.
        owner: as of `place.make_at`.

    Raises:
        ConfigError: it has another form.
        LimitError: systemd can't be asked here, or a limit can't be applied: says why, and what to do.
    """
    host = own_scope(cgroups_path, container_id, euid=os.geteuid(), environ=os.environ)
    steps = limit_steps(host, host.scope, resources, devices=devices, everywhere=True)
    return Cgroup(
        host.scope, {}, f"{host.v2_parent}/{host.scope}", ProcessScope(host, steps, resources, owner), joined=True
    )
