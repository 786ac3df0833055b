"""Compile a Spec to a Plan: every step of a start, in order. Pure: it neither looks at the host nor changes it.

The security of a container depends on this order:

1. Sources of bind mounts are opened while the host's file system is still in sight.
2. The container's root is assembled from detached mounts, in a private mount namespace.
3. Everything below it is reached through its descriptor, by paths that can't lead out of it.
4. pivot_root removes the host's file system before anything of the image has run.
5. Privileges are dropped last, in an order in which each step still has the privilege that it needs.

Source for the order in 5: credentials(7), capabilities(7), seccomp(2).
"""

from __future__ import annotations

from os import fsencode

from minibox.errors import ConfigError
from minibox.plan import devices, labels, mounts, namespaces, parent, scheduling
from minibox.plan import operations as op
from minibox.plan.check import check
from minibox.plan.places import Places
from minibox.plan.process import ROOT_USER, become, session
from minibox.plan.rootfs import clone_mounter, clone_opener, mounter, opener, own_root, receive, shared_root, show_disk
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from minibox.oci.runtime import Linux, Spec
    from minibox.plan.operations import Op
    from minibox.plan.rootfs import Rootfs
    from minibox.plan.start import Start


@record
class Plan:
    """A start as data: all steps of all actors, in the order in which they begin.

    Attributes:
        flags: the flags of the clone3(2) that makes the container's first process.
        encoded: the steps of an actor in the format of `plan.encode`, if they are already encoded.
    """

    ops: tuple[Op, ...]
    flags: int
    encoded: Mapping[str, bytes | bytearray] = {}

    def of(self, actor: str) -> list[Op]:
        """Return the steps of one actor, in order."""
        return [step for step in self.ops if step.actor == actor]


def compile_plan(spec: Spec, rootfs: Rootfs, start: Start) -> Plan:
    """Compile a start.

    Raises:
        ConfigError: the Spec is invalid.
    """
    check(spec)
    _check_root(spec, rootfs)
    wanted = mounts.read(spec.get("mounts", []), start.cgroup_mounts)
    binds = [mount for mount in wanted if mount.bind and not mount.remount]
    own_ids = namespaces.has_own_ids(spec)
    wanted_devices = spec.get("linux", {}).get("devices", [])
    # A user namespace can't make devices; the host's root can.
    made_by_root = rootfs.path and wanted_devices and "user" in namespaces.types(spec) and not start.rootless
    # Only the mounter may use a loop device for an image: the container's cgroup would forbid it.
    below_mounter = bool(
        start.id_mapped or rootfs.images or made_by_root or (own_ids and any(mount.id_map for mount in binds))
    )
    made = wanted_devices if below_mounter and (made_by_root or not rootfs.path) else []
    handed_over = [*(mount.destination for mount in binds), *(device["path"] for device in made)]
    if len(handed_over) > op.FIRST_KEPT - op.FIRST_BIND:
        raise ConfigError(
            f"{len(handed_over)} bind mounts and devices are too many: a start can have {op.FIRST_KEPT - op.FIRST_BIND}"
        )
    if below_mounter and namespaces.shares_mounts(spec):
        raise ConfigError("id-mapped mounts of a user namespace by path need a new mount namespace")
    places = Places()
    opened = bool(own_ids and binds and rootfs.path and not below_mounter) and not (
        start.rootless or namespaces.shares_mounts(spec)
    )
    helper = [clone_mounter(start.id_mapped)] if below_mounter else [clone_opener()] if opened else []
    by_helper = opener(binds) if opened else []
    if below_mounter:
        by_helper = mounter(rootfs, spec, binds, made, start.id_mapped)
    last_hooks: list[Op] = []
    if spec.get("hooks"):
        from minibox.plan import hooks

        last_hooks = hooks.before_exec(spec)
    return Plan(
        (
            *start.held,
            *start.ports,
            *_user_namespaces(binds),
            *namespaces.birth(spec, start),
            *helper,
            *map(op.by_mounter, by_helper),
            *_root(spec, rootfs, binds, handed_over if below_mounter else None, start, opened),
            *([show_disk()] if rootfs.disk else []),
            *_furnish(spec, wanted, bool(made), places),
            *_close_up(spec, start, wanted, places),
            *session(spec["process"], start, console=True),
            *mounts.close_dev(wanted),
            *_network(spec, start),
            *scheduling.memory_policy_of(spec.get("linux", {})),
            *scheduling.personality_of(spec.get("linux", {})),
            *become(spec["process"], start, last_hooks),
        ),
        namespaces.clone_flags(spec),
    )  # fmt: skip


def _check_root(spec: Spec, rootfs: Rootfs) -> None:
    if namespaces.shares_mounts(spec) and rootfs.path in ("", "/"):
        raise ConfigError(
            "in a shared mount namespace, / can't be the container's root: it would cover the root of the others",
            "use a directory below it, or a bind mount of /",
        )


def _user_namespaces(binds: list[mounts.Mount]) -> list[Op]:
    """Return the steps that make user namespaces for bind mounts with mappings of their own."""
    return [
        parent.make_userns(slot, mount.uid_map, mount.gid_map, f"to map the ids of {mount.destination}")
        for slot, mount in enumerate(binds, op.FIRST_USERNS)
        if mount.uid_map
    ]


def _root(
    spec: Spec,
    rootfs: Rootfs,
    binds: list[mounts.Mount],
    handed_over: list[str] | None,
    start: Start,
    opened: bool,
) -> list[Op]:
    """Return the steps for the container's root and its ids.

    The container's ids may have no access to another user's directory and the mounts in it, so those are opened first.
    """
    identity = namespaces.identity(spec, start)
    if namespaces.shares_mounts(spec):
        return [*shared_root(rootfs, binds, namespaces.joined(spec).get("mount", "")), *identity]
    root = own_root(rootfs, binds, opened=opened) if handed_over is None else receive(rootfs, handed_over)
    return [*root, *identity] if rootfs.path else [*identity, *root]


def _furnish(spec: Spec, wanted: list[mounts.Mount], devices_made: bool, places: Places) -> list[Op]:
    """Return the steps for mounts, devices and links below the new root."""
    steps: list[Op] = []
    label = spec.get("linux", {}).get("mountLabel", "")
    own_ids = namespaces.has_own_ids(spec)  # a new ipc namespace's files can't be given our label
    slot = op.FIRST_BIND
    for mount in wanted:
        if mount.bind and not mount.remount:
            steps += mounts.attach(mount, slot, places)
            slot += 1
        else:
            steps += mounts.place(mount, places, label if mount.fstype != "mqueue" or not own_ids else "")
    steps += devices.furnish(spec, wanted, places, slot if devices_made else None)
    if spec.get("hostname"):
        steps.append(op.sethostname(spec["hostname"], "the name of the new UTS namespace"))
    if spec.get("domainname"):
        steps.append(op.setdomainname(spec["domainname"], "the domain of the new UTS namespace"))
    return steps


def _close_up(spec: Spec, start: Start, wanted: list[mounts.Mount], places: Places) -> list[Op]:
    """Return the steps after which nothing below the root changes, and the host's file system is gone."""
    linux = spec.get("linux", {})
    steps = _sysctls(linux, places)
    cwd = spec["process"]["cwd"]
    if cwd != "/":
        steps.append(op.mkdir(op.ROOT, cwd, "make the working directory if it is missing"))
    if spec.get("hooks"):
        from minibox.plan import hooks

        steps += hooks.before_pivot(spec)
    steps += mounts.close(wanted, places)
    for path in linux.get("readonlyPaths", []):
        steps.append(op.read_only(*places.of(path, look=True), "keep the container from changing the host's kernel"))
    steps += [
        op.mask(*places.of(path, look=True), "hide information about the host") for path in linux.get("maskedPaths", [])
    ]
    if spec.get("root", {}).get("readonly"):
        steps.append(op.mount_attributes(op.ROOT, "make the root read-only", set_=op.RDONLY))
    steps += labels.opened(spec["process"], start.keyring, joined="mount" in namespaces.joined(spec))
    if namespaces.shares_mounts(spec):
        steps.append(op.chroot("the container's root becomes /; other processes in this mount namespace keep theirs"))
    elif start.pivot:
        steps.append(op.pivot_root("the container's root becomes /, the host's file system is gone"))
    else:
        steps.append(
            op.move_root("the container's root covers the host's, which stays below it: pivot_root is not possible")
        )
    propagation = linux.get("rootfsPropagation", "")
    if propagation:
        steps.append(op.propagation("/", mounts.PROPAGATION[propagation], "as the Spec says"))
    return steps


def _sysctls(linux: Linux, places: Places) -> list[Op]:
    """Settings are written before they become read-only, to the container's own procfs, which shows its namespaces."""
    steps = []
    for name, value in linux.get("sysctl", {}).items():
        path = f"/proc/sys/{name if '/' in name.partition('.')[0] else _dots_to_slashes(name)}"
        steps.append(op.write_proc(*places.of(path), fsencode(value), "set a kernel parameter of the new namespaces"))
    return steps


def _dots_to_slashes(name: str) -> str:
    """``net.ipv4.conf.eth0/1.forwarding`` means the interface eth0.1; sysctl(8)."""
    return "/".join(part.replace("/", ".") for part in name.split("."))


def _network(spec: Spec, start: Start) -> list[Op]:
    steps: list[Op] = []
    if "network" in namespaces.types(spec):
        steps.append(op.loopback_up("in a new network namespace the loopback is down"))
    steps += [*start.network, *start.published]
    if start.terminal:
        user = spec["process"].get("user", ROOT_USER)
        owner = namespaces.on_host(user["uid"], spec.get("linux", {}).get("uidMappings", ()))
        steps.append(parent.take_terminal(owner))
    steps += [
        parent.send(op.TAG_GO, "everything is ready"),
        op.wait(op.TAG_GO, "until network and bookkeeping are ready"),
    ]
    return steps
