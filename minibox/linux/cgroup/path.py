"""Make a cgroup at a given path: OCI `linux.cgroupsPath`.

It has the same place as in runc, because Podman, dockerd and containerd look there: the same path in every hierarchy,
also in v2's beside v1's. An absolute path begins at the hierarchy's root, a relative one at minibox's own cgroup (on
v2 at the one above, because ours has processes and so can't have children with limits). Missing parents are made, and
stay.

Sources: OCI runtime spec, config-linux.md "Cgroups Path"; runc's libcontainer/cgroups.
"""

from __future__ import annotations

import os
from posixpath import normpath

from minibox.base.lines import lines_of
from minibox.base.operation import parent
from minibox.errors import ConfigError, MiniboxError, kernel_says
from minibox.linux.cgroup.group import Cgroup
from minibox.linux.cgroup.host import CgroupHost, controllers, enabled_controllers, parse_mounts, read_text
from minibox.linux.cgroup.steps import (
    WRITE,
    controller_of,
    copy,
    enable_steps,
    is_optional,
    limit_of,
    limit_steps,
    parent_mkdir,
)
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from minibox.base.operation import Op
    from minibox.linux.cgroup.host import CgroupMounts

DELEGATED = "cgroup.procs cgroup.subtree_control cgroup.threads"


@record
class Place:
    """The place for a cgroup.

    Attributes:
        host: its v1 and v2 parents.
        name: the last component of its path.
        v1_above: the directories above it in the v1 hierarchies, each after its parents.
        v2_above: the same for v2, with the controllers that each already gives to its children.
    """

    host: CgroupHost
    name: str
    v1_above: tuple[str, ...] = ()
    v2_above: tuple[tuple[str, tuple[str, ...]], ...] = ()


def find_place(cgroups_path: str, container_id: str) -> Place:
    """Find the place of `linux.cgroupsPath` on this host; without a path, use the container's id.

    Hierarchies that we may not write there are left out.

    Raises:
        ConfigError: the path is the root, which can't be a container's cgroup.
    """
    return place_at(
        cgroups_path or container_id, parse_mounts(read_text("/proc/self/mountinfo")), read_text("/proc/self/cgroup")
    )


def place_at(cgroups_path: str, mounts: CgroupMounts, own_cgroups: str) -> Place:
    """Like `find_place`, for these hierarchies.

    Args:
        own_cgroups: the text of /proc/self/cgroup.
    """
    clean = normpath(f"/{cgroups_path}").lstrip("/")
    above, _, name = clean.rpartition("/")
    if not name:
        raise ConfigError(f"linux.cgroupsPath {cgroups_path!r}: it is the root of the cgroups", "give it a name")
    own = {} if cgroups_path.startswith("/") else _own(own_cgroups)
    v1, v1_above, denied = {}, dict[str, None](), []
    for controller, top in {**mounts.v1, **mounts.named}.items():
        bottom = _below(top, own.get(controller, "/"), above)
        if _is_writable(top, bottom):
            v1[controller] = bottom
            v1_above.update(dict.fromkeys(_chain(top, bottom)))
        else:
            denied.append(controller)
    mode = ("hybrid" if mounts.v2 else "v1") if mounts.v1 else "v2" if mounts.v2 else "none"
    if not mounts.v2:
        return Place(CgroupHost(mode, v1, tuple(denied)), name, tuple(v1_above))
    bottom = _below(mounts.v2, own.get("", "/").rpartition("/")[0], above)
    if not _is_writable(mounts.v2, bottom):
        return Place(CgroupHost(mode, v1, tuple(denied), v2_denied=own.get("") or "/"), name, tuple(v1_above))
    v2_above = tuple((each, enabled_controllers(each)) for each in (mounts.v2, *_chain(mounts.v2, bottom)))
    host = CgroupHost(mode, v1, tuple(denied), bottom, controllers(mounts.v2), v2_above[-1][1])
    return Place(host, name, tuple(v1_above), v2_above)


def place_of(group: Cgroup) -> Place:
    """Return the place of an existing cgroup, to change its limits."""
    v1 = {controller: os.path.dirname(path) for controller, path in group.v1.items()}
    above = os.path.dirname(group.v2)
    mode = ("hybrid" if group.v2 else "v1") if v1 else "v2" if group.v2 else "none"
    available = enabled_controllers(above) if above else ()
    return Place(CgroupHost(mode, v1, (), above, available, available), group.name)


def place_steps(place: Place, resources: Mapping[str, Any], *, devices: bool = True) -> tuple[Op, ...]:
    """Return the steps that make the cgroup with the limits of OCI ``linux.resources``. Pure.

    Raises:
        LimitError: this host can't apply one of the limits.
    """
    host = place.host
    steps = limit_steps(host, place.name, resources, devices=devices, everywhere=True)
    needed = {
        controller_of(each): limit_of(each)
        for each in steps
        if each.name == WRITE and limit_of(each) and not is_optional(each)
    }
    return (*_parent_steps(place, needed), *steps)


def _parent_steps(place: Place, needed: Mapping[str, str]) -> Iterator[Op]:
    host = place.host
    for directory, enabled in place.v2_above:
        if directory != place.v2_above[0][0]:
            yield parent_mkdir(directory)
        if directory != host.v2_parent:  # that one comes just before its child
            yield from enable_steps(directory, host.v2_available, host.v2_available, enabled, needed)
    cpuset = host.v1.get("cpuset", "")
    for directory in place.v1_above:
        yield parent_mkdir(directory)
        if cpuset == directory or cpuset.startswith(f"{directory}/"):
            for file in ("cpuset.cpus", "cpuset.mems"):
                above = os.path.dirname(directory)
                yield copy(f"{directory}/{file}", f"{above}/{file}", optional=True)


def give(directory: str, owner: int) -> None:
    """Let a user make cgroups in a v2 cgroup, but not change its limits: cgroups(7), "Delegation"."""
    try:
        files = read_text("/sys/kernel/cgroup/delegate").split()
    except FileNotFoundError:
        files = DELEGATED.split()
    for path in (directory, *(f"{directory}/{name}" for name in files)):
        try:
            os.chown(path, owner, -1)
        except FileNotFoundError:
            continue  # not all cgroups have this file
        except OSError as error:
            raise MiniboxError(f"give cgroup {path} to user {owner}: {kernel_says(error)}") from error


def _own(text: str) -> dict[str, str]:
    """Return controller -> our own cgroup, from the text of /proc/self/cgroup; v2's is under ""."""
    own = {}
    for line in lines_of(text):
        _, names, path = line.split(":", 2)
        own.update(dict.fromkeys(names.split(","), path))
    return own


def _below(top: str, own: str, above: str) -> str:
    """Return the directory of the cgroup ``above`` below our own, or below the root if the mount doesn't show ours."""
    base = top + own.rstrip("/")
    return f"{base if os.path.isdir(base) else top}/{above}".rstrip("/")


def _chain(top: str, bottom: str) -> Iterator[str]:
    """Yield the directories from ``top`` (excluded) to ``bottom``."""
    names = bottom[len(top) :].strip("/").split("/") if bottom != top else []
    for count in range(1, len(names) + 1):
        yield "/".join((top, *names[:count]))


def _is_writable(top: str, bottom: str) -> bool:
    """Tell whether we may make a cgroup there, in the nearest existing one."""
    directory = bottom
    while directory != top and not os.path.isdir(directory):
        directory = directory.rpartition("/")[0]
    return os.access(directory, os.W_OK)


def give_step(directory: str, owner: int) -> Op:
    """The same as a step."""
    return parent("cgroup_chown", directory, owner, why="a container that sees it read-write may make cgroups in it")
