"""Control groups, v1, v2 and both at once, behind one small interface.

`detect` says what the host offers, `cgroup_steps` compiles OCI `linux.resources` for it without
touching anything, `create` performs that, and a `Cgroup` is entered, watched, killed and removed.
"""

from minibox.linux.cgroup.creation import create, make, planned
from minibox.linux.cgroup.group import Cgroup, CgroupUsage, find, leftovers, remove_leftover
from minibox.linux.cgroup.host import CgroupHost, CgroupMounts, detect, parse_mounts
from minibox.linux.cgroup.steps import CgroupStep, cgroup_steps, v2_controllers

__all__ = [
    "Cgroup",
    "CgroupHost",
    "CgroupMounts",
    "CgroupStep",
    "CgroupUsage",
    "cgroup_steps",
    "create",
    "detect",
    "find",
    "leftovers",
    "make",
    "parse_mounts",
    "planned",
    "remove_leftover",
    "v2_controllers",
]
