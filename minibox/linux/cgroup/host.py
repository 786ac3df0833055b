"""What cgroups this host offers us: v1, v2 or both, and where a cgroup of ours may be made.

Sources: cgroups(7), Documentation/admin-guide/cgroup-v2.rst ("Delegation", "No Internal Process
Constraint"), proc(5) for mountinfo.
"""

from __future__ import annotations

import os
from os import W_OK, access

from minibox.base.lines import lines_of
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

V2_MOUNT = "/sys/fs/cgroup"
"""Where every distribution mounts a pure v2 hierarchy (systemd's file-hierarchy(7))."""


@record
class CgroupMounts:
    """The cgroup hierarchies of a mount table.

    Attributes:
        v1: controller -> directory of the hierarchy that has it; co-mounted controllers share one.
        v2: directory of the v2 hierarchy; "" where there is none.
        v2_root: the cgroup that is mounted at ``v2``, "/" unless a subtree was bind mounted.
        named: as ``v1``, of hierarchies without a controller: "name=systemd".
    """

    v1: dict[str, str]
    v2: str
    v2_root: str
    named: dict[str, str] = {}


@record
class CgroupHost:
    """What `cgroup_steps` has to know of the host, so that it needs no system call itself.

    Attributes:
        mode: "v1", "v2", "hybrid" (v1 controllers, with a v2 hierarchy beside them) or "none".
        v1: controller -> hierarchy directory, those we may write only.
        v1_denied: v1 controllers that are mounted but not ours to write (an ordinary user).
        v2_parent: the v2 cgroup's directory in which ours are made: the hierarchy's root for root, a
            delegated ancestor of our own cgroup for a user; "" where there is none.
        v2_available: controllers that ``v2_parent`` has.
        v2_enabled: those of them that it gives to its children already (cgroup.subtree_control).
        v2_denied: our own v2 cgroup, when neither it nor an ancestor is delegated to us; else "".
        nested: the hierarchy's root, as it is mounted here, is a cgroup of somebody else's: this is a container.
        scope: the unit of systemd's that ``v2_parent`` is the cgroup of, made together with ours; "" without systemd.
        slice: the slice of that unit.
        joined: a process can't be born in a cgroup of ours, since we are in one that belongs to somebody else:
            systemd moves it there.
        named: v1 hierarchies without a controller: "name=systemd" -> directory, those we may write only.
    """

    mode: str
    v1: dict[str, str]
    v1_denied: tuple[str, ...] = ()
    v2_parent: str = ""
    v2_available: tuple[str, ...] = ()
    v2_enabled: tuple[str, ...] = ()
    v2_denied: str = ""
    nested: bool = False
    scope: str = ""
    slice: str = ""
    joined: bool = False
    named: dict[str, str] = {}

    @property
    def hierarchies(self) -> dict[str, str]:
        """All of v1 that we may write, by controller or by name."""
        return {**self.v1, **self.named}

    @property
    def usable(self) -> bool:
        """True when a cgroup can be made at all."""
        return bool(self.v2_parent or self.v1)


def parse_mounts(mountinfo: str) -> CgroupMounts:
    """Find the cgroup hierarchies in the text of /proc/self/mountinfo.

    Of several mounts of one hierarchy the first counts, as the later ones are bind mounts of it.
    """
    from minibox.linux.mount_table import unescaped  # a start on v2 alone needs none

    v1: dict[str, str] = {}
    named: dict[str, str] = {}
    v2 = v2_root = ""
    for line in lines_of(mountinfo):
        left, _, right = line.partition(" - ")
        if not right.startswith("cgroup"):
            continue
        fields, (kind, _, options) = left.split(" "), (right.split(" ") + ["", ""])[:3]
        root, directory = map(unescaped, fields[3:5])
        if kind == "cgroup2":
            if not v2:
                v2, v2_root = directory, root
        elif kind == "cgroup":
            for option in options.split(","):
                if option.startswith("name="):
                    named.setdefault(option, directory)
                elif option not in _NOT_CONTROLLERS and not option.startswith("release_agent="):
                    v1.setdefault(option, directory)
    return CgroupMounts(v1, v2, v2_root, named)


_NOT_CONTROLLERS = ("rw", "ro", "none", "xattr", "clone_children", "cpuset_v2_mode", "noprefix", "favordynmods", "")


def detect(mounts: CgroupMounts | None = None, own_v2: str | None = None) -> CgroupHost:
    """Find out what this process may do with cgroups.

    Args:
        mounts: the hierarchies; None reads /proc/self/mountinfo, or takes a pure v2 host's fixed place.
        own_v2: our own v2 cgroup, as in /proc/self/cgroup; None reads it when it matters.
    """
    if mounts is None:
        if access(f"{V2_MOUNT}/cgroup.controllers", 0):
            mounts = CgroupMounts({}, V2_MOUNT, "/")
        else:
            mounts = parse_mounts(read_text("/proc/self/mountinfo"))
    v1 = {name: path for name, path in mounts.v1.items() if access(path, W_OK)}
    denied = tuple(name for name in mounts.v1 if name not in v1)
    named = {name: path for name, path in mounts.named.items() if access(path, W_OK)}
    if not mounts.v2:
        return CgroupHost("v1" if mounts.v1 else "none", v1, denied, named=named)
    mode = "hybrid" if mounts.v1 else "v2"
    parent = mounts.v2
    if not _is_ours(parent):
        own = current_v2() if own_v2 is None else own_v2
        parent = next(filter(_is_ours, _ancestors(mounts, own)), "")
        if not parent:
            return CgroupHost(mode, v1, denied, v2_denied=own, named=named)
    nested = parent == mounts.v2 and access(f"{parent}/cgroup.type", 0)  # the true root has no such file
    available, enabled = controllers(parent), enabled_controllers(parent)
    return CgroupHost(mode, v1, denied, parent, available, enabled, nested=nested, named=named)


def controllers(directory: str) -> tuple[str, ...]:
    """The controllers that a v2 cgroup has."""
    return _words(f"{directory}/cgroup.controllers")


def enabled_controllers(directory: str) -> tuple[str, ...]:
    """The controllers that a v2 cgroup gives to its children."""
    return _words(f"{directory}/cgroup.subtree_control")


def read_text(path: str) -> str:
    """The text of a file of the kernel; UTF-8 with surrogates for what isn't."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a start reads several: a file object would cost more than the rest
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts).decode(errors="surrogateescape")


def _is_ours(directory: str) -> bool:
    """True when we may make cgroups in ``directory`` and move processes from there (cgroup-v2.rst, "Delegation
    Containment": write access to the cgroup.procs of the common ancestor)."""
    return access(directory, W_OK) and access(f"{directory}/cgroup.procs", W_OK)


def _ancestors(mounts: CgroupMounts, own: str) -> Iterator[str]:
    """Directories of the cgroups above ``own``, nearest first, then its own.

    Ours comes last: it holds processes (us), so it can't give controllers to children.
    """
    inside = own[len(mounts.v2_root) :] if mounts.v2_root != "/" and own.startswith(mounts.v2_root) else own
    inside = inside.rstrip("/")
    above = inside
    while above:
        above = above.rpartition("/")[0]
        yield mounts.v2 + above
    if inside:
        yield mounts.v2 + inside


def current_v2() -> str:
    """The v2 cgroup that this process is in, as the hierarchy's mount shows it."""
    for line in lines_of(read_text("/proc/self/cgroup")):
        if line.startswith("0::"):
            return line[3:]
    return "/"


def _words(path: str) -> tuple[str, ...]:
    try:
        return tuple(read_text(path).split())
    except OSError:
        return ()
