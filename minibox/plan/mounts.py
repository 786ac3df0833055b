"""The mounts of a Spec as operations: fresh file systems and bind mounts, with the Spec's options.

Options by the OCI runtime specification, config.md, "Linux mount options".
"""

from __future__ import annotations

from minibox.errors import ConfigError
from minibox.plan import operations as op
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minibox.oci import runtime
    from minibox.plan.operations import Op

ATIME = 0x70  # MOUNT_ATTR__ATIME: a field, not a bit

# option: (attributes to set, to clear)
ATTRIBUTES = {
    "ro": (op.RDONLY, 0),
    "rw": (0, op.RDONLY),
    "nosuid": (op.NOSUID, 0),
    "suid": (0, op.NOSUID),
    "nodev": (op.NODEV, 0),
    "dev": (0, op.NODEV),
    "noexec": (op.NOEXEC, 0),
    "exec": (0, op.NOEXEC),
    "noatime": (op.NOATIME, ATIME),
    "atime": (0, ATIME),
    "relatime": (0, ATIME),
    "norelatime": (0, 0),
    "strictatime": (op.STRICTATIME, ATIME),
    "nostrictatime": (0, ATIME),
    "nodiratime": (op.NODIRATIME, 0),
    "diratime": (0, op.NODIRATIME),
    "nosymfollow": (op.NOSYMFOLLOW, 0),
    "symfollow": (0, op.NOSYMFOLLOW),
    "defaults": (0, 0),
}
PROPAGATION = {
    "private": op.MS_PRIVATE,
    "slave": op.MS_SLAVE,
    "shared": op.MS_SHARED,
    "unbindable": op.MS_UNBINDABLE,
    "rprivate": op.MS_REC | op.MS_PRIVATE,
    "rslave": op.MS_REC | op.MS_SLAVE,
    "rshared": op.MS_REC | op.MS_SHARED,
    "runbindable": op.MS_REC | op.MS_UNBINDABLE,
}
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
DEV_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)
WHY = {
    "proc": "the processes of the container's own pid namespace",
    "sysfs": "the kernel's devices and network as the container's namespaces show them",
    "devpts": "terminals of the container's own",
    "mqueue": "POSIX message queues of its own ipc namespace",
    "cgroup": "its cgroups, as its own cgroup namespace shows them",
    "cgroup2": "its cgroups, as its own cgroup namespace shows them",
}


def option_names() -> list[str]:
    """The options that a mount of a Spec may have beside those of its file system."""
    of_all_below = [f"r{name}" for name in ATTRIBUTES if name != "defaults"]
    return sorted({*ATTRIBUTES, *of_all_below, *PROPAGATION, "bind", "rbind", "idmap", "ridmap"})


@record
class Mount:
    """A mount of the Spec, its options understood.

    Attributes:
        bind: an existing directory or file rather than a new file system.
        set_, clear: mount_setattr(2) attributes; ``all_set``, ``all_clear``: those of mounts below it too.
        options: those of the file system's own, comma-separated.
        id_map: files show the container's ids.
    """

    destination: str
    fstype: str
    source: str | None
    bind: bool
    recursive: bool = False
    id_map: bool = False
    set_: int = 0
    clear: int = 0
    all_set: int = 0
    all_clear: int = 0
    propagation: int = 0
    options: str = ""


def read(mounts: Iterable[runtime.Mount], cgroup_mounts: tuple[tuple[str, str, str], ...]) -> list[Mount]:
    """Understand the mounts of a Spec; a mount of type ``cgroup`` becomes those that the host has."""
    found = []
    for mount in mounts:
        if mount.get("type") == "cgroup":
            found += _cgroup(mount, cgroup_mounts)
        else:
            found.append(_read(mount))
    return found


def _read(mount: runtime.Mount) -> Mount:
    destination = mount["destination"]
    if not destination.startswith("/"):
        raise ConfigError(f"the mount destination {destination!r} is not absolute")
    fstype = mount.get("type", "")
    bind = fstype == "bind"
    recursive = id_map = False
    set_ = clear = all_set = all_clear = propagation = 0
    data = []
    for option in mount.get("options", []):
        if option in ATTRIBUTES:
            on, off = ATTRIBUTES[option]
            set_, clear = set_ & ~off | on, clear & ~on | off
        elif option[:1] == "r" and option[1:] in ATTRIBUTES:
            on, off = ATTRIBUTES[option[1:]]
            all_set, all_clear = all_set & ~off | on, all_clear & ~on | off
        elif option in PROPAGATION:
            propagation = PROPAGATION[option]
        elif option in ("bind", "rbind"):
            bind, recursive = True, option == "rbind"
        elif option in ("idmap", "ridmap"):
            id_map = True
        else:
            data.append(option)
    if bind and data:
        raise ConfigError(f"a bind mount has no option {data[0]!r} (mount on {destination})")
    if bind and not mount.get("source"):
        raise ConfigError(f"the bind mount on {destination} has no source")
    return Mount(
        destination, fstype, mount.get("source"), bind, recursive, id_map, set_, clear, all_set, all_clear, propagation,
        ",".join(data),
    )  # fmt: skip


def _cgroup(mount: runtime.Mount, hierarchies: tuple[tuple[str, str, str], ...]) -> list[Mount]:
    """cgroup v2 is one file system; v1 is a tmpfs with one for each hierarchy."""
    base = _read(mount)
    attributes = base.set_
    top = base.destination
    if not hierarchies:
        return []
    if hierarchies[0][0] == "":
        return [Mount(top, "cgroup2", "cgroup", False, set_=attributes)]
    tmpfs = Mount(top, "tmpfs", "tmpfs", False, set_=attributes & ~op.RDONLY, options="mode=0755,size=64k")
    return [tmpfs] + [
        Mount(f"{top}/{name}", fstype, "cgroup", False, set_=attributes, options=options)
        for name, fstype, options in hierarchies
    ]


def open_bind(mount: Mount, slot: int) -> list[Op]:
    """Clone the source of a bind mount, detached, with its attributes."""
    assert mount.source is not None
    steps = [op.open_tree(mount.source, slot, f"the source of {mount.destination}", recursive=mount.recursive)]
    if mount.id_map:
        steps.append(op.id_map(slot, "owners look alike on both sides", recursive=mount.recursive))
    spread = mount.propagation or op.MS_REC | op.MS_PRIVATE
    everywhere = bool(spread & op.MS_REC)
    if (mount.all_set or mount.all_clear) and not everywhere:
        steps.append(
            op.mount_attributes(
                slot, "as asked for, of mounts below it too", set_=mount.all_set, clear=mount.all_clear, recursive=True
            )
        )
    steps.append(
        op.mount_attributes(
            slot,
            "as asked for" if mount.propagation else "by default no mount spreads through it",
            set_=mount.all_set if everywhere else 0,
            clear=mount.all_clear if everywhere else 0,
            propagation=spread & ~op.MS_REC,
            recursive=everywhere,
        )
    )
    if mount.set_ or mount.clear:
        steps.append(op.mount_attributes(slot, "as asked for", set_=mount.set_, clear=mount.clear))
    return steps


def fresh(mount: Mount) -> Op:
    """Mount a new file system."""
    why = WHY.get(
        mount.fstype, "a file system in memory" if mount.fstype == "tmpfs" else f"a {mount.fstype} file system"
    )
    attributes = mount.set_ | mount.all_set
    return op.mount(
        mount.fstype, mount.destination, why, source=mount.source, options=mount.options, attributes=attributes
    )
