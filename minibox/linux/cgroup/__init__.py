"""Control groups, v1, v2 and both at once, behind one small interface. Which limits a container gets is decided in
`minibox.engine.spec`.

`detect` finds out what the host offers, `cgroup_steps` compiles OCI `linux.resources` for it without touching
anything, and `create` carries that out. A `Cgroup` can be entered, watched, killed and removed.

Each name is imported when it is used: code that removes a cgroup doesn't need the code that makes one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.linux.cgroup.creation import create as create
    from minibox.linux.cgroup.creation import make as make
    from minibox.linux.cgroup.creation import planned as planned
    from minibox.linux.cgroup.group import Cgroup as Cgroup
    from minibox.linux.cgroup.group import CgroupUsage as CgroupUsage
    from minibox.linux.cgroup.group import find as find
    from minibox.linux.cgroup.host import CgroupHost as CgroupHost
    from minibox.linux.cgroup.host import CgroupMounts as CgroupMounts
    from minibox.linux.cgroup.host import detect as detect
    from minibox.linux.cgroup.host import parse_mounts as parse_mounts
    from minibox.linux.cgroup.steps import cgroup_steps as cgroup_steps
    from minibox.linux.cgroup.steps import v2_controllers as v2_controllers
else:
    _WHERE = {
        "creation": ("create", "make", "planned"),
        "group": ("Cgroup", "CgroupUsage", "find"),
        "host": ("CgroupHost", "CgroupMounts", "detect", "parse_mounts"),
        "steps": ("cgroup_steps", "v2_controllers"),
    }

    def __getattr__(name):
        """Import a name when it is first used."""
        for module, names in _WHERE.items():
            if name in names:
                value = globals()[name] = getattr(__import__(f"{__name__}.{module}", fromlist=(name,)), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
