"""The container's root file system as operations: from layers, from a tree, by a mounter or by itself."""

from __future__ import annotations

from minibox.plan import mounts, parent
from minibox.plan import operations as op
from minibox.plan.devices import device_node
from minibox.plan.namespaces import NAMESPACES
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.oci.runtime import LinuxDevice, Spec
    from minibox.plan.disk import Disk
    from minibox.plan.operations import Op

CLONE_VM = 0x100
OVER_ITSELF = "over itself, in this namespace only: hooks find it there"
OWNERS = "its files keep their ids on disk and show the container's"


@record
class Rootfs:
    """What the container's root file system is made of.

    Attributes:
        directory: the container's own directory, with ``upper`` and ``work`` in it.
        lowerdirs: unpacked layers, topmost first.
        images: each layer is not a directory but an EROFS image.
        tree: a directory that is the whole root file system, instead of layers; "" for layers.
        path: somebody else's directory that is the whole root file system, used as it is; "" for none.
        follows: what the host mounts below ``path`` later is seen inside, too.
        userxattr: overlayfs keeps its marks in ``user.`` attributes, as it must without privilege.
        volatile: nothing is synced to disk at the end; for what is thrown away anyway.
        disk: what the container writes stays in memory, and is no more than that; None: in ``directory``.
    """

    directory: str = ""
    lowerdirs: tuple[str, ...] = ()
    images: bool = False
    tree: str = ""
    path: str = ""
    follows: bool = False
    userxattr: bool = False
    volatile: bool = False
    disk: Disk | None = None


def clone_mounter(id_mapped: bool) -> Op:
    """The process that does what the container's own can't."""
    why = (
        "only the host's root may id-map layers"
        if id_mapped
        else "the container may do less: mount images, make devices"
    )
    return parent.clone_mounter(CLONE_VM | NAMESPACES["mount"], why)


def mounter(
    rootfs: Rootfs, spec: Spec, binds: list[mounts.Mount], devices: list[LinuxDevice], id_mapped: bool
) -> list[Op]:
    """Its steps: the root, the sources of all bind mounts and the devices, opened and handed over."""
    linux, ids = spec.get("linux", {}), (0, 0)
    if id_mapped:
        ids = linux["uidMappings"][0]["hostID"], linux["gidMappings"][0]["hostID"]
    steps = [op.die_with_parent("it must not outlive minibox either")]
    for slot, mount in enumerate(binds, op.FIRST_BIND):
        steps += mounts.open_bind(mount, slot)
    handed_over = [mount.destination for mount in binds]
    if rootfs.path:
        steps += _open_path(rootfs)
        stage = "/tmp"
        if devices:
            steps.append(_tmpfs(stage, "a place to make devices, gone with this namespace"))
    else:
        stage = f"{rootfs.directory}/root"
        steps += _stage(rootfs) if rootfs.tree else _stack(rootfs, id_mapped, ids)
    for device in devices:
        # Made by the host's root, which may, and given to the container's ids, which a bind of the host's lacks.
        slot, path = op.FIRST_BIND + len(handed_over), f"{stage}/device-{len(handed_over)}"
        steps.append(device_node(device, op.HOST, path, linux))
        steps.append(op.open_tree(path, slot, f"to be {device['path']}"))
        handed_over.append(device["path"])
    if rootfs.tree:
        steps += [_open_tree(rootfs), op.id_map(op.ROOT, OWNERS), *_tree_attributes(rootfs)]
    elif not rootfs.path:
        steps.append(op.open_tree(f"{rootfs.directory}/root/root", op.ROOT, "the root, detached, to hand it over"))
    return steps + _hand_over(handed_over, rootfs.disk)


def _hand_over(destinations: list[str], disk: Disk | None = None) -> list[Op]:
    steps = [op.send_fd(op.CHANNEL, op.ROOT, 0, "the container's process attaches it")]
    if disk:
        steps.append(op.send_fd(op.CHANNEL, op.SCRATCH, 0, "the container's own layer, for minibox"))
    for slot, destination in enumerate(destinations, op.FIRST_BIND):
        steps.append(op.send_fd(op.CHANNEL, slot, 0, f"the source of {destination}"))
    return steps


def opener(binds: list[mounts.Mount]) -> list[Op]:
    """The steps of a helper that opens the sources of bind mounts with the caller's rights, where the container's
    process has none: below another user's directory, root of a user namespace is anybody. It does so from where that
    process looks, in its mount namespace, in which mounts of the host's keep what their attributes forbid."""
    steps = [
        op.die_with_parent("it must not outlive minibox either"),
        op.chroot("what the container's process is to clone must be of its own mounts"),
    ]
    for slot, mount in enumerate(binds, op.FIRST_BIND):
        assert mount.source is not None
        steps.append(op.open_(mount.source, op.O_PATH, slot, f"the source of {mount.destination}"))
        steps.append(op.send_fd(op.CHANNEL, slot, 0, "the container's process mounts it"))
    return steps


def clone_opener() -> Op:
    """The process of `opener`."""
    return parent.clone_mounter(CLONE_VM, "root of a user namespace may not look wherever the host's root may")


def receive(rootfs: Rootfs, handed_over: list[str]) -> list[Op]:
    """What the mounter has made."""
    attached = "in this namespace only, over a directory that every host has"
    steps = [
        op.propagation("/", op.MS_REC | op.MS_PRIVATE, "pivot_root wants it, and nothing may reach the host"),
        op.recv_fd(op.ROOT, "the root that the mounter has put together"),
        op.attach(op.ROOT, op.HOST, rootfs.path or "/tmp", OVER_ITSELF if rootfs.path else attached),
        *([op.recv_fd(op.SCRATCH, "the container's own layer")] if rootfs.disk else []),
    ]
    for slot, destination in enumerate(handed_over, op.FIRST_BIND):
        steps.append(op.recv_fd(slot, f"the source of {destination}"))
    return steps


def show_disk() -> Op:
    """The parent gets the container's own layer, which is in no directory of the host's."""
    return op.send_fd(op.STATUS, op.SCRATCH, op.TAG_DISK, "minibox sees how full it is, and what is in it")


def own_root(rootfs: Rootfs, binds: list[mounts.Mount], *, opened: bool = False) -> list[Op]:
    """The same, by the container's own process.

    Args:
        opened: an `opener` sends the sources of the bind mounts.
    """
    steps: list[Op] = []
    for slot, mount in enumerate(binds, op.FIRST_BIND):
        steps += mounts.open_bind(mount, slot, opened=opened)
    if rootfs.path:
        return [*steps, *_open_path(rootfs), op.attach(op.ROOT, op.HOST, rootfs.path, OVER_ITSELF)]
    if rootfs.tree:
        return [
            *steps,
            *_stage(rootfs)[:1],
            _open_tree(rootfs),
            op.attach(op.ROOT, op.HOST, f"{rootfs.directory}/root", "in this namespace only"),
            *_tree_attributes(rootfs),
        ]
    steps += _stack(rootfs, False, (0, 0))
    steps.append(
        op.open_(f"{rootfs.directory}/root/root", op.O_PATH_DIRECTORY, op.ROOT, "the container's root directory")
    )
    return steps


def shared_root(rootfs: Rootfs, binds: list[mounts.Mount], namespace: str) -> list[Op]:
    """The same in a mount namespace that others are in: of theirs nothing changes, and one mount, with what is below it,
    is all that there is to undo at the container's end.

    Args:
        namespace: the path of theirs; "" for the caller's.
    """
    steps: list[Op] = []
    for slot, mount in enumerate(binds, op.FIRST_BIND):
        steps += mounts.open_bind(mount, slot)
    spread = op.MS_SLAVE if rootfs.follows else op.MS_PRIVATE
    return [
        *steps,
        op.open_tree(rootfs.path, op.ROOT, "the container's root, with the mounts below it", recursive=True),
        op.mount_attributes(op.ROOT, "what is mounted below spreads nowhere", propagation=spread, recursive=True),
        op.send_fd(op.STATUS, op.ROOT, op.TAG_ROOT, "what is to be undone at the container's end"),
        parent.take_root(rootfs.path, namespace),
        parent.send(op.TAG_ROOT, "the child may go on"),
        op.wait(op.TAG_ROOT, "until it is written down"),
        op.attach(op.ROOT, op.HOST, rootfs.path, "over itself: all mounts are below it"),
    ]


def _stage(rootfs: Rootfs) -> list[Op]:
    return [
        op.propagation("/", op.MS_REC | op.MS_PRIVATE, "no mount of ours may reach the host"),
        _tmpfs(f"{rootfs.directory}/root", "a place to put the layers together, gone with this namespace"),
    ]


def _tmpfs(path: str, why: str) -> Op:
    return op.mount("tmpfs", op.HOST, path, why, source="minibox", options="mode=0755", attributes=op.NOSUID)


def _stack(rootfs: Rootfs, id_mapped: bool, ids: tuple[int, int]) -> list[Op]:
    """Mount the overlay of the image's layers and the container's own in ``rootfs.directory``/root.

    Every layer is attached under a number: mount(2) takes one page of options, and a hundred long
    paths don't fit into it.
    """
    stage = f"{rootfs.directory}/root"
    steps = _stage(rootfs)
    layers = [(str(number), path) for number, path in enumerate(rootfs.lowerdirs)]
    own = [] if rootfs.disk else [("rw", rootfs.directory)]
    for name, path in [*layers, *own]:
        what = "the container's own layer" if name == "rw" else f"layer {len(layers) - int(name)} of {len(layers)}"
        if rootfs.images and name != "rw":
            steps.append(op.open_image(path, op.SCRATCH, f"{what}, a read-only file system in a file"))
        else:
            steps.append(op.open_tree(path, op.SCRATCH, f"{what}, as a mount of its own"))
        if id_mapped:
            steps.append(op.id_map(op.SCRATCH, OWNERS))
        steps.append(op.attach(op.SCRATCH, op.HOST, f"{stage}/{name}", "under a short name"))
    steps.append(op.mkdir(op.HOST, f"{stage}/root", "the root to be"))
    if rootfs.disk:
        steps.append(rootfs.disk.mount(stage))
    if id_mapped:
        steps.append(op.set_fs_ids(*ids, "the overlay works with the ids of who mounts it, and they must be mapped"))
        steps.append(op.die_with_parent("a change of ids forgets it"))
    if rootfs.disk:
        steps += rootfs.disk.directories(stage, ids)
    options = f"lowerdir={':'.join(name for name, _ in layers)},upperdir=rw/upper,workdir=rw/work"
    # What changed must be in the upperdir, for `commit`; some kernels do otherwise by default, never with userxattr.
    options += ",userxattr" if rootfs.userxattr else ",metacopy=off,redirect_dir=off"
    options += ",volatile" if rootfs.volatile else ""
    steps.append(op.mount_overlay(stage, options, "root", "layers read-only below, one read/write layer on top"))
    if rootfs.disk:
        steps.append(op.open_(f"{stage}/rw", op.O_PATH_DIRECTORY, op.SCRATCH, "the container's own layer, to show it"))
    return steps


def _open_path(rootfs: Rootfs) -> list[Op]:
    spread = op.MS_SLAVE if rootfs.follows else op.MS_PRIVATE
    return [
        op.propagation("/", op.MS_REC | spread, "no mount of ours may reach the host"),
        op.open_tree(rootfs.path, op.ROOT, "the container's root, with the mounts below it", recursive=True),
    ]


def _open_tree(rootfs: Rootfs) -> Op:
    return op.open_tree(rootfs.tree, op.ROOT, "the container's tree, as a mount of its own")


def _tree_attributes(rootfs: Rootfs) -> list[Op]:
    """Attributes of the container's tree, cloned as `op.ROOT`."""
    if rootfs.userxattr:
        return []  # an ordinary user's mounts are locked
    cleared = op.RDONLY | op.NOSUID | op.NODEV | op.NOEXEC | mounts.ATIME
    why = "as the image needs it, whatever the host's mount forbids; and reading doesn't unshare what was cloned"
    return [op.mount_attributes(op.ROOT, why, set_=op.NOATIME, clear=cleared)]
