"""Spec -> Plan: every step of a start, in order. Pure: it asks the host nothing and changes nothing.

The order is where the security of a container lies, so here is why it is as it is:

1. Sources of bind mounts are opened while the host's file system is still in sight.
2. The container's root is put together under a private mount namespace, from detached mounts.
3. Everything below it is reached through its descriptor, by paths that can't lead out of it.
4. pivot_root takes the host's file system away before anything of the image has run.
5. Privileges go last, in an order in which each step still has the privilege that it needs.

Source for the order of 5: credentials(7), capabilities(7), seccomp(2).
"""

from __future__ import annotations

from os import fsencode

from minibox.errors import ConfigError
from minibox.plan import devices, hooks, labels, mounts, namespaces, parent, scheduling
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
        flags: of the clone3(2) that makes the container's first process.
        encoded: the steps of an actor as `plan.encode` writes them, where somebody has them already.
    """

    ops: tuple[Op, ...]
    flags: int
    encoded: Mapping[str, bytes | bytearray] = {}

    def of(self, actor: str) -> list[Op]:
        """The steps of one actor, in order."""
        return [step for step in self.ops if step.actor == actor]


def compile_plan(spec: Spec, rootfs: Rootfs, start: Start) -> Plan:
    """Compile a start.

    Raises:
        ConfigError: the Spec asks for something that has no meaning here.
    """
    check(spec)
    _check_root(spec, rootfs)
    wanted = mounts.read(spec.get("mounts", []), start.cgroup_mounts)
    binds = [mount for mount in wanted if mount.bind and not mount.remount]
    own_ids = namespaces.has_own_ids(spec)
    wanted_devices = spec.get("linux", {}).get("devices", [])
    # Inside a user namespace nobody makes devices; outside, the host's root does.
    made_by_root = rootfs.path and wanted_devices and "user" in namespaces.types(spec) and not start.rootless
    # A loop device, which an image may need, is none of the container's: its cgroup would forbid it.
    below_mounter = bool(
        start.id_mapped or rootfs.images or made_by_root or (own_ids and any(mount.id_map for mount in binds))
    )
    made = wanted_devices if below_mounter and (made_by_root or not rootfs.path) else []
    handed_over = [*(mount.destination for mount in binds), *(device["path"] for device in made)]
    if len(handed_over) > op.FIRST_KEPT - op.FIRST_BIND:
        raise ConfigError(
            f"{len(handed_over)} bind mounts and devices are more than the {op.FIRST_KEPT - op.FIRST_BIND} of one start"
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
            *become(spec["process"], start, hooks.before_exec(spec)),
        ),
        namespaces.clone_flags(spec),
    )  # fmt: skip


def _check_root(spec: Spec, rootfs: Rootfs) -> None:
    if namespaces.shares_mounts(spec) and rootfs.path in ("", "/"):
        raise ConfigError(
            "a container in a mount namespace of others can't have / as its root: theirs would be covered",
            "a directory below it can be, a bind mount of / too",
        )


def _user_namespaces(binds: list[mounts.Mount]) -> list[Op]:
    """Those of bind mounts with mappings of their own."""
    return [
        parent.make_userns(slot, mount.uid_map, mount.gid_map, f"the ids of {mount.destination}")
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
    """The container's root and its ids. Somebody else's directory, and what is mounted into it, may be out of the
    reach of its ids: it is opened before."""
    identity = namespaces.identity(spec, start)
    if namespaces.shares_mounts(spec):
        return [*shared_root(rootfs, binds, namespaces.joined(spec).get("mount", "")), *identity]
    root = own_root(rootfs, binds, opened=opened) if handed_over is None else receive(rootfs, handed_over)
    return [*root, *identity] if rootfs.path else [*identity, *root]


def _furnish(spec: Spec, wanted: list[mounts.Mount], devices_made: bool, places: Places) -> list[Op]:
    """Mounts, devices and links below the new root."""
    steps: list[Op] = []
    label = spec.get("linux", {}).get("mountLabel", "")
    own_ids = namespaces.has_own_ids(spec)  # what is in a new ipc namespace is its maker's, and not for a label of ours
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
    """Nothing below the root changes after this; then the host's file system goes away."""
    linux = spec.get("linux", {})
    steps = _sysctls(linux, places)
    cwd = spec["process"]["cwd"]
    if cwd != "/":
        steps.append(op.mkdir(op.ROOT, cwd, "the working directory, made when missing"))
    steps += hooks.before_pivot(spec)
    steps += mounts.close(wanted, places)
    for path in linux.get("readonlyPaths", []):
        steps.append(op.read_only(*places.of(path, look=True), "the host's kernel is not for writing"))
    steps += [op.mask(*places.of(path, look=True), "tells of the host") for path in linux.get("maskedPaths", [])]
    if spec.get("root", {}).get("readonly"):
        steps.append(op.mount_attributes(op.ROOT, "a read-only root", set_=op.RDONLY))
    steps += labels.opened(spec["process"], start.keyring, joined="mount" in namespaces.joined(spec))
    if namespaces.shares_mounts(spec):
        steps.append(op.chroot("the container's root becomes /; the others in this mount namespace keep theirs"))
    elif start.pivot:
        steps.append(op.pivot_root("the container's root becomes /, the host's file system is gone"))
    else:
        steps.append(op.move_root("the container's root covers the host's, which stays below it: pivot_root can't be"))
    propagation = linux.get("rootfsPropagation", "")
    if propagation:
        steps.append(op.propagation("/", mounts.PROPAGATION[propagation], "as the Spec wants it"))
    return steps


def _sysctls(linux: Linux, places: Places) -> list[Op]:
    """Written before they are read-only, and to the container's own procfs: it shows its namespaces' settings."""
    steps = []
    for name, value in linux.get("sysctl", {}).items():
        path = f"/proc/sys/{name if '/' in name.partition('.')[0] else _dots_to_slashes(name)}"
        steps.append(op.write_proc(*places.of(path), fsencode(value), "a kernel setting of the new namespaces"))
    return steps


def _dots_to_slashes(name: str) -> str:
    """``net.ipv4.conf.eth0/1.forwarding`` is the file of the interface eth0.1; sysctl(8)."""
    return "/".join(part.replace("/", ".") for part in name.split("."))


def _network(spec: Spec, start: Start) -> list[Op]:
    steps: list[Op] = []
    if "network" in namespaces.types(spec):
        steps.append(op.loopback_up("a new network namespace has its loopback down"))
    steps += [*start.network, *start.published]
    if start.terminal:
        user = spec["process"].get("user", ROOT_USER)
        owner = namespaces.on_host(user["uid"], spec.get("linux", {}).get("uidMappings", ()))
        steps.append(parent.take_terminal(owner))
    steps += [
        parent.send(op.TAG_GO, "nothing is missing any more"),
        op.wait(op.TAG_GO, "until network and bookkeeping are ready"),
    ]
    return steps
