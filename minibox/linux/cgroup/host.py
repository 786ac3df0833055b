"""Find out which cgroups this host offers: v1, v2 or both, and where we may make a cgroup.

Sources: cgroups(7), Documentation/admin-guide/cgroup-v2.rst ("Delegation", "No Internal Process
Constraint"), proc(5) for mountinfo.
"""

from __future__ import annotations

import os
from os import W_OK, access

from minibox.base.files import closing
from minibox.base.lines import lines_of
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

V2_MOUNT = "/sys/fs/cgroup"
"""All distributions mount a pure v2 hierarchy here (systemd's file-hierarchy(7))."""


@record
class CgroupMounts:
    """The cgroup hierarchies of a mount table.

    Attributes:
        v1: controller -> directory of its hierarchy; co-mounted controllers share one.
        v2: directory of the v2 hierarchy; "" if there is none.
        v2_root: the cgroup that is mounted at ``v2``, "/" unless a subtree was bind mounted.
        named: like ``v1``, for hierarchies without a controller: "name=systemd".
    """

    v1: dict[str, str]
    v2: str
    v2_root: str
    named: dict[str, str] = {}


@record
class CgroupHost:
    """What `cgroup_steps` needs to know about the host, so that it needs no system calls itself.

    Attributes:
        mode: "v1", "v2", "hybrid" (v1 controllers and a v2 hierarchy) or "none".
        v1: controller -> hierarchy directory, only those that we may write.
        v1_denied: v1 controllers that are mounted, but that we may not write (as an ordinary user).
        v2_parent: the v2 cgroup in which we make ours: the hierarchy's root for root, a delegated ancestor of our own
            cgroup for a user; "" if there is none.
        v2_available: the controllers of ``v2_parent``.
        v2_enabled: those that it gives to its children already (cgroup.subtree_control).
        v2_denied: our own v2 cgroup if neither it nor an ancestor is delegated to us; otherwise "".
        nested: the hierarchy's root, as mounted here, is somebody else's cgroup: we are in a container.
        scope: the systemd unit whose cgroup is ``v2_parent``, made together with ours; "" without systemd.
        slice: the slice of that unit.
        joined: a process can't start in our cgroup, because we are in somebody else's: systemd moves it there.
        named: v1 hierarchies without a controller: "name=systemd" -> directory, only those that we may write.
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
        """All v1 hierarchies that we may write, by controller or by name."""
        return {**self.v1, **self.named}

    @property
    def usable(self) -> bool:
        """Whether we can make a cgroup at all."""
        return bool(self.v2_parent or self.v1)


def parse_mounts(mountinfo: str) -> CgroupMounts:
    """Find the cgroup hierarchies in the text of /proc/self/mountinfo.

    If a hierarchy is mounted several times, the first mount counts: later ones are bind mounts of it.
    """
    v1: dict[str, str] = {}
    named: dict[str, str] = {}
    v2 = v2_root = ""
    for line in lines_of(mountinfo):
        left, _, right = line.partition(" - ")
        if not right.startswith("cgroup"):
            continue
        fields, (kind, _, options) = left.split(" "), (right.split(" ") + ["", ""])[:3]
        root, directory = fields[3:5]
        if "\\" in root + directory:
            from minibox.linux.mount_table import unescaped

            root, directory = unescaped(root), unescaped(directory)
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
        mounts: the hierarchies; None to read /proc/self/mountinfo, or use the fixed place of a pure v2 host.
        own_v2: our own v2 cgroup, as in /proc/self/cgroup; None to read it if needed.
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
    """Return the controllers that a v2 cgroup has."""
    return _words(f"{directory}/cgroup.controllers")


def enabled_controllers(directory: str) -> tuple[str, ...]:
    """Return the controllers that a v2 cgroup gives to its children."""
    return _words(f"{directory}/cgroup.subtree_control")


def read_text(path: str) -> str:
    """Return the text of one of the kernel's files, as UTF-8 with surrogates for other bytes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a start reads several, and a file object costs more than reading
    with closing(fd):
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
    return b"".join(parts).decode(errors="surrogateescape")


def _is_ours(directory: str) -> bool:
    """Tell whether we may make cgroups in ``directory`` and move processes from there.

    That takes write access to the cgroup.procs of the common ancestor (cgroup-v2.rst, "Delegation Containment").
    """
    return access(directory, W_OK) and access(f"{directory}/cgroup.procs", W_OK)


def _ancestors(mounts: CgroupMounts, own: str) -> Iterator[str]:
    """Yield the directories of the cgroups above ``own``, nearest first, then its own.

    Our own comes last: it has processes (us), so it can't give controllers to children.
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
    """Return this process's v2 cgroup, as the hierarchy's mount shows it."""
    for line in lines_of(read_text("/proc/self/cgroup")):
        if line.startswith("0::"):
            return line[3:]
    return "/"


def _words(path: str) -> tuple[str, ...]:
    try:
        return tuple(read_text(path).split())
    except OSError:
        return ()
