"""The mounts of a Spec as operations: new file systems and bind mounts, with the Spec's options.

Source of the options: OCI runtime specification, config.md, "Linux mount options".
"""

from __future__ import annotations

from os import fsencode

from minibox.errors import ConfigError
from minibox.plan import operations as op
from minibox.plan.places import clean
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minibox.oci import runtime
    from minibox.plan.operations import Op
    from minibox.plan.places import Places

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
}
# option: (the file system's option, True to set it and False to remove it)
FILE_SYSTEM = {
    "sync": ("sync", True),
    "async": ("sync", False),
    "dirsync": ("dirsync", True),
    "mand": ("mand", True),
    "nomand": ("mand", False),
    "lazytime": ("lazytime", True),
    "nolazytime": ("lazytime", False),
}
# For mount(2) only, or always so: every file system that counts versions does so by default.
WITHOUT_EFFECT = ("defaults", "remount", "silent", "loud", "iversion", "noiversion")
# A label option is refused: their files have labels of their own, or all their mounts are one file system.
LABELLED_BY_POLICY = ("proc", "sysfs", "cgroup", "cgroup2", "mqueue")
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
WHY = {
    "proc": "shows the processes of the container's pid namespace",
    "sysfs": "shows the kernel's devices, and the container's network",
    "devpts": "terminals for this container only",
    "mqueue": "POSIX message queues of the container's ipc namespace",
    "cgroup": "shows the container's cgroups",
    "cgroup2": "shows the container's cgroups",
}


def option_names() -> list[str]:
    """Return the options that a mount of a Spec may have, except those of its file system."""
    of_all_below = [f"r{name}" for name in ATTRIBUTES]
    others = ("bind", "rbind", "idmap", "ridmap", "tmpcopyup")
    return sorted({*ATTRIBUTES, *of_all_below, *PROPAGATION, *FILE_SYSTEM, *WITHOUT_EFFECT, *others})


@record
class Mount:
    """A mount of the Spec with parsed options.

    Attributes:
        bind: an existing directory or file rather than a new file system.
        remount: change what is already mounted there.
        set_, clear: mount_setattr(2) attributes; ``all_set``, ``all_clear``: also of mounts below it.
        options: options of the file system, comma-separated.
        id_map: files show the container's ids, or those of ``uid_map`` and ``gid_map``, as in /proc/PID/uid_map;
            ``id_map_below``: also in mounts below it.
        copy_up: copy what the directory has into the new tmpfs.
        links: symlinks to make in it, target and path.
    """

    destination: str
    fstype: str
    source: str | None
    bind: bool
    recursive: bool = False
    remount: bool = False
    id_map: bool = False
    id_map_below: bool = False
    uid_map: str = ""
    gid_map: str = ""
    set_: int = 0
    clear: int = 0
    all_set: int = 0
    all_clear: int = 0
    propagation: int = 0
    options: str = ""
    copy_up: bool = False
    links: tuple[tuple[str, str], ...] = ()


def read(mounts: Iterable[runtime.Mount], cgroup_mounts: tuple[tuple[str, str, str], ...]) -> list[Mount]:
    """Parse the mounts of a Spec. A mount of type ``cgroup`` is replaced by what the host has."""
    found = []
    for mount in mounts:
        if mount.get("type") == "cgroup" and "bind" not in mount.get("options", ()):
            found += _cgroup(mount, cgroup_mounts)
        else:
            found.append(_read(mount))
    return found


def _read(mount: runtime.Mount) -> Mount:
    options = mount.get("options", [])
    destination = clean(mount["destination"])  # the specification wants older, relative ones accepted
    fstype, source = mount.get("type", ""), mount.get("source")
    bind = fstype == "bind" or "bind" in options or "rbind" in options
    set_, clear = _attributes(options, "")
    all_set, all_clear = _attributes(options, "r")
    data = _data(options)
    spread = [PROPAGATION[option] for option in options if option in PROPAGATION]
    uid_map, gid_map = _id_map(mount.get("uidMappings", [])), _id_map(mount.get("gidMappings", []))
    remount = "remount" in options
    if bind and remount and (unknown := ignored(mount)):
        raise ConfigError(f"a bind mount can't have the option {unknown[0]!r} (mount on {destination})")
    if bind and not source and not remount:
        raise ConfigError(f"the bind mount on {destination} has no source")
    if not bind and not remount and fstype in ("", "none"):
        raise ConfigError(f"the mount on {destination} has no type")
    if bool(uid_map) != bool(gid_map):
        raise ConfigError(f"the mount on {destination} has mappings for one kind of ids only")
    id_map = bool(uid_map) or "idmap" in options or "ridmap" in options
    if id_map and (not bind or remount):
        raise ConfigError(f"the mount on {destination} can't be id-mapped: only a bind mount can")
    return Mount(
        destination,
        fstype,
        source,
        bind,
        recursive="rbind" in options,
        remount=remount,
        id_map=id_map,
        id_map_below="ridmap" in options or (id_map and "rbind" in options),
        uid_map=uid_map,
        gid_map=gid_map,
        set_=set_,
        clear=clear,
        all_set=all_set,
        all_clear=all_clear,
        propagation=spread[-1] if spread else 0,
        options="" if bind and not remount else ",".join(data),
        copy_up="tmpcopyup" in options,
    )


def ignored(mount: runtime.Mount) -> list[str]:
    """Return the options of a bind mount that only a new file system could have."""
    options = mount.get("options", [])
    if mount.get("type") != "bind" and not {"bind", "rbind"} & {*options}:
        return []
    return [word for word in _data(options) if word not in dict(FILE_SYSTEM.values())]


def _attributes(options: list[str], prefix: str) -> tuple[int, int]:
    """Return the attributes to set and to clear, from options with a prefix. Of contrary options the last wins.

    Access times are different: they are flags of mount(2), where the strictest wins in any order.
    """
    set_ = clear = 0
    for option in options:
        if option[: len(prefix)] == prefix and option[len(prefix) :] in ATTRIBUTES:
            on, off = ATTRIBUTES[option[len(prefix) :]]
            set_, clear = set_ & ~off | on, clear & ~on | off
    flags = {flag for flag in ("strictatime", "noatime") if not prefix and _is_set(options, flag)}
    if flags:
        set_ = set_ & ~ATIME | (op.STRICTATIME if "strictatime" in flags else op.NOATIME)
        clear |= ATIME
    return set_, clear


def _is_set(options: list[str], flag: str) -> bool:
    """The last option for the flag wins: ``nostrictatime`` cancels ``strictatime``, ``atime`` cancels ``noatime``."""
    contrary = "atime" if flag == "noatime" else f"no{flag}"
    return next((option == flag for option in reversed(options) if option in (flag, contrary)), False)


def _data(options: list[str]) -> list[str]:
    """Return the options that go to the file system itself."""
    ours = ("bind", "rbind", "idmap", "ridmap", "tmpcopyup", *WITHOUT_EFFECT)
    told: list[str] = []
    for option in options:
        if option in FILE_SYSTEM:
            word, on = FILE_SYSTEM[option]
            told = [*(each for each in told if each != word), *([word] if on else [])]
        elif option not in ours and option not in ATTRIBUTES and option not in PROPAGATION:
            if not (option[:1] == "r" and option[1:] in ATTRIBUTES):
                told.append(option)
    return told


def _id_map(mappings: list[runtime.LinuxIDMapping]) -> str:
    """Return mappings in the kernel's format."""
    return "".join(f"{each['containerID']} {each['hostID']} {each['size']}\n" for each in mappings)


def _cgroup(mount: runtime.Mount, hierarchies: tuple[tuple[str, str, str], ...]) -> list[Mount]:
    """cgroup v2 is one file system; v1 is a tmpfs with one for each hierarchy, read-only once all are in it."""
    base = _read(mount)
    attributes, top = base.set_, base.destination
    if not hierarchies:
        return []
    if hierarchies[0][0] == "":
        return [_hierarchy(hierarchies[0], top, base)]
    links = tuple((name, f"{top}/{part}") for name, _, _ in hierarchies if "," in name for part in name.split(","))
    tmpfs = Mount(top, "tmpfs", "tmpfs", False, set_=attributes & ~op.RDONLY, options="mode=0755,size=64k", links=links)
    closed = [Mount(top, "tmpfs", None, True, remount=True, set_=op.RDONLY)] if attributes & op.RDONLY else []
    return [tmpfs, *(_hierarchy(each, f"{top}/{each[0]}", base) for each in hierarchies), *closed]


def _hierarchy(hierarchy: tuple[str, str, str], destination: str, base: Mount) -> Mount:
    """Return a hierarchy as the container's cgroup namespace shows it; type ``bind`` is the container's directory."""
    _, fstype, options = hierarchy
    if fstype == "bind":
        return Mount(destination, "bind", options, True, set_=base.set_, propagation=base.propagation)
    return Mount(destination, fstype, "cgroup", False, set_=base.set_, options=options, propagation=base.propagation)


def open_bind(mount: Mount, slot: int, *, opened: bool = False) -> list[Op]:
    """Clone the source of a bind mount as a detached mount, with its attributes.

    Args:
        opened: a helper sends it: see `rootfs.opener`.
    """
    assert mount.source is not None
    why = f"the source of {mount.destination}"
    if opened:
        steps = [op.recv_fd(slot, why), op.clone_tree(slot, "make it a mount of its own", mount.recursive)]
    else:
        steps = [op.open_tree(mount.source, slot, why, recursive=mount.recursive)]
    if mount.id_map:
        userns = op.USERNS if not mount.uid_map else op.FIRST_USERNS + slot - op.FIRST_BIND
        steps.append(op.id_map(slot, "files have the same owners inside and outside", mount.id_map_below, userns))
    spread = mount.propagation or op.MS_REC | op.MS_PRIVATE
    everywhere = bool(spread & op.MS_REC)
    if (mount.all_set or mount.all_clear) and not everywhere:
        steps.append(
            op.mount_attributes(
                slot,
                "as requested, also for mounts below it",
                set_=mount.all_set,
                clear=mount.all_clear,
                recursive=True,
            )
        )
    steps.append(
        op.mount_attributes(
            slot,
            "as requested" if mount.propagation else "by default mounts don't propagate through it",
            set_=mount.all_set if everywhere else 0,
            clear=mount.all_clear if everywhere else 0,
            propagation=spread & ~op.MS_REC,
            recursive=everywhere,
        )
    )
    if mount.set_ or mount.clear:
        steps.append(op.mount_attributes(slot, "as requested", set_=mount.set_, clear=mount.clear))
    return steps


def attach(mount: Mount, slot: int, places: Places) -> list[Op]:
    """Attach a bind mount that was cloned into ``slot``."""
    steps = [op.attach(slot, *places.of(mount.destination), "a bind mount")]
    held = places.slot(mount.destination, "" if mount.bind else mount.fstype)
    if held is not None:
        why = "reach what is below it through this mount only"
        steps.append(op.open_in(slot, "/", op.O_PATH, held, why))
        steps += _hold(mount, held, places)
    return steps


def place(mount: Mount, places: Places, label: str = "") -> list[Op]:
    """Mount a new file system, or change an existing mount.

    Args:
        places: the mounts held so far. Adds this one if what is below must be reached through it.
        label: the SELinux label for its files.
    """
    if mount.remount:
        return _remount(mount, *places.of(mount.destination))
    why = WHY.get(
        mount.fstype, "a file system in memory" if mount.fstype == "tmpfs" else f"a {mount.fstype} file system"
    )
    attributes = mount.set_ | mount.all_set
    if is_closed_later(mount):
        attributes &= ~op.RDONLY
    # A device's file system must know that it must not write; for others the attribute is enough.
    on_device = attributes & op.RDONLY and (mount.source or "").startswith("/")
    context = f'context="{label}"' if label and mount.fstype not in LABELLED_BY_POLICY else ""
    if "context=" in mount.options:
        context = ""
    options = ",".join(filter(None, ["ro" if on_device else "", mount.options, context]))
    held = places.slot(mount.destination, "" if mount.bind else mount.fstype)
    slot = op.SCRATCH if held is None else held
    where = places.of(mount.destination, mount.fstype)
    steps: list[Op] = []
    if mount.fstype == "tmpfs" and (mount.copy_up or not _has_mode(mount.options)):
        steps.append(op.mount_tmpfs(*where, why, options=options, attributes=attributes, copy=mount.copy_up, slot=slot))
    else:
        steps.append(
            op.mount(mount.fstype, *where, why, source=mount.source, options=options, attributes=attributes, slot=slot)
        )
    if label and mount.fstype == "mqueue":
        steps.append(op.label_file(slot, "/", fsencode(label), "it existed before, and has no option for a label"))
    if mount.propagation & ~op.MS_REC not in (0, op.MS_PRIVATE):
        spread = mount.propagation & ~op.MS_REC
        steps.append(op.mount_attributes(slot, "as requested", propagation=spread))
    if held is not None:
        steps += _hold(mount, held, places)
    return steps + [
        op.symlink(target, *places.of(path), "the name of one of the hierarchy's controllers")
        for target, path in mount.links
    ]


def is_closed_later(mount: Mount) -> bool:
    """Return whether it becomes read-only only after it is filled: a tmpfs, which begins empty, and /dev."""
    read_only = not mount.bind and (mount.set_ | mount.all_set) & op.RDONLY
    return bool(read_only) and (mount.fstype == "tmpfs" or mount.destination == "/dev")


def close(wanted: Iterable[Mount], places: Places) -> list[Op]:
    """Make them read-only, except /dev, which may still get a console."""
    last = {mount.destination: mount for mount in wanted}
    return [
        op.attributes_at(*places.of(mount.destination), "it is complete, so make it read-only", op.RDONLY)
        for mount in last.values()
        if is_closed_later(mount) and mount.destination != "/dev"
    ]


def close_dev(wanted: Iterable[Mount]) -> list[Op]:
    """As `close`."""
    found = [mount for mount in wanted if mount.destination == "/dev"][-1:]
    why = "it is complete, so make it read-only"
    return [op.mount_attributes(op.CONTAINERS_DEV, why, set_=op.RDONLY) for mount in found if is_closed_later(mount)]


def _hold(mount: Mount, slot: int, places: Places) -> list[Op]:
    places.hold(mount.destination, slot, "sysfs" if mount.destination == "/sys" else mount.fstype)
    if mount.destination != "/proc":
        return []
    places.hold(mount.destination, slot, "proc")
    return [op.expect_procfs(slot, "otherwise the container could redirect what is written or masked there")]


def _has_mode(options: str) -> bool:
    return any(option.startswith("mode=") for option in options.split(","))


def _remount(mount: Mount, root: int, path: str) -> list[Op]:
    steps: list[Op] = []
    if not mount.bind:
        options = ",".join(filter(None, ["ro" if mount.set_ & op.RDONLY else "rw", mount.options]))
        steps.append(op.reconfigure(root, path, options, "change the file system itself too"))
    if mount.all_set or mount.all_clear:
        why = "as requested, also for mounts below it"
        steps.append(op.attributes_at(root, path, why, mount.all_set, mount.all_clear, recursive=True))
    spread = mount.propagation & ~op.MS_REC
    steps.append(op.attributes_at(root, path, "as requested", mount.set_, mount.clear, propagation=spread))
    return steps
