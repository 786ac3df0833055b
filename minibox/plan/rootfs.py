"""The steps for the container's root file system: from layers or a tree, by a mounter or by the container's process."""

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
OVER_ITSELF = "mount it over itself, in this namespace only, so that hooks find it"
OWNERS = "its files keep their ids on disk, and the container sees its own"


@record
class Stacked:
    """A directory of the host below the root, under an overlay of its own.

    Attributes:
        destination: where the container sees it.
        lowerdir: the host's directory.
        directory: the container's own, with ``upper`` and ``work`` in it.
        attributes: of the mount, as in mount_setattr(2).
    """

    destination: str
    lowerdir: str
    directory: str
    attributes: int = 0


@record
class Rootfs:
    """The parts of the container's root file system.

    Attributes:
        directory: the container's own directory, with ``upper`` and ``work`` in it.
        lowerdirs: unpacked layers, topmost first.
        images: each layer is an EROFS image, not a directory.
        tree: a directory that is the whole root file system, instead of layers; "" for layers.
        path: someone else's directory to use as the root file system, unchanged; "" for none.
        follows: the container also sees what the host mounts below ``path`` later.
        userxattr: overlayfs keeps its marks in ``user.`` attributes, as it must without privilege.
        volatile: nothing is synced to disk at the end; for containers that are thrown away.
        disk: keep what the container writes in memory, limited in size; None: in ``directory``.
        stacked: more overlays below the root, each after those above it.
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
    stacked: tuple[Stacked, ...] = ()


def clone_mounter(id_mapped: bool) -> Op:
    """Return the step that makes the mounter, a process that may do what the container's can't."""
    why = (
        "only root on the host may id-map layers" if id_mapped else "the container may not mount images or make devices"
    )
    return parent.clone_mounter(CLONE_VM | NAMESPACES["mount"], why)


def mounter(
    rootfs: Rootfs, spec: Spec, binds: list[mounts.Mount], devices: list[LinuxDevice], id_mapped: bool
) -> list[Op]:
    """Return the mounter's steps: open the root, the sources of all bind mounts and the devices, and pass them on."""
    linux, ids = spec.get("linux", {}), (0, 0)
    if id_mapped:
        ids = linux["uidMappings"][0]["hostID"], linux["gidMappings"][0]["hostID"]
    steps = [op.die_with_parent("it must not outlive minibox")]
    for slot, mount in enumerate(binds, op.FIRST_BIND):
        steps += mounts.open_bind(mount, slot)
    handed_over = [mount.destination for mount in binds]
    if rootfs.path:
        steps += _open_path(rootfs)
        stage = "/tmp"
        if devices:
            steps.append(_tmpfs(stage, "a place to make devices, which vanishes with this namespace"))
    else:
        stage = f"{rootfs.directory}/root"
        steps += _stage(rootfs) if rootfs.tree else _stack(rootfs, id_mapped, ids)
    for device in devices:
        # Made by the host's root, which may, and owned by the container's ids, unlike a bind mount of the host's
        # device.
        slot, path = op.FIRST_BIND + len(handed_over), f"{stage}/device-{len(handed_over)}"
        steps.append(device_node(device, op.HOST, path, linux))
        steps.append(op.open_tree(path, slot, f"becomes {device['path']}"))
        handed_over.append(device["path"])
    if rootfs.tree:
        steps += [_open_tree(rootfs), op.id_map(op.ROOT, OWNERS), *_tree_attributes(rootfs)]
    elif not rootfs.path:
        steps.append(op.open_tree(f"{rootfs.directory}/root/root", op.ROOT, "detach the root, to pass it on"))
    return steps + _hand_over(handed_over, rootfs.disk)


def _hand_over(destinations: list[str], disk: Disk | None = None) -> list[Op]:
    steps = [op.send_fd(op.CHANNEL, op.ROOT, 0, "pass it to the container's process")]
    if disk:
        steps.append(op.send_fd(op.CHANNEL, op.SCRATCH, 0, "pass on the container's own layer, for minibox"))
    for slot, destination in enumerate(destinations, op.FIRST_BIND):
        steps.append(op.send_fd(op.CHANNEL, slot, 0, f"the source of {destination}"))
    return steps


def opener(binds: list[mounts.Mount]) -> list[Op]:
    """Return the steps of a helper that opens the sources of bind mounts with the caller's rights.

    Root of a user namespace has no special rights below another user's directory. The helper looks from the root of the
    container's process, in its mount namespace, so that the host's mounts keep their restrictions.
    """
    steps = [
        op.die_with_parent("it must not outlive minibox"),
        op.chroot("the container's process can clone only mounts of its own namespace"),
    ]
    for slot, mount in enumerate(binds, op.FIRST_BIND):
        assert mount.source is not None
        steps.append(op.open_(mount.source, op.O_PATH, slot, f"the source of {mount.destination}"))
        steps.append(op.send_fd(op.CHANNEL, slot, 0, "pass it to the container's process, which mounts it"))
    return steps


def clone_opener() -> Op:
    """Return the step that makes the process of `opener`."""
    return parent.clone_mounter(CLONE_VM, "root of a user namespace can't open everything that the host's root can")


def receive(rootfs: Rootfs, handed_over: list[str]) -> list[Op]:
    """Return the steps that receive what the mounter has made."""
    attached = "in this namespace only, over a directory that exists on every host"
    steps = [
        op.propagation("/", op.MS_REC | op.MS_PRIVATE, "pivot_root requires it, and no mount may reach the host"),
        op.recv_fd(op.ROOT, "take the root that the mounter has assembled"),
        op.attach(op.ROOT, op.HOST, rootfs.path or "/tmp", OVER_ITSELF if rootfs.path else attached),
        *([op.recv_fd(op.SCRATCH, "take the container's own layer")] if rootfs.disk else []),
    ]
    for slot, destination in enumerate(handed_over, op.FIRST_BIND):
        steps.append(op.recv_fd(slot, f"the source of {destination}"))
    return steps


def show_disk() -> Op:
    """Return the step that passes the container's own layer to the parent, since no path on the host leads to it."""
    return op.send_fd(op.STATUS, op.SCRATCH, op.TAG_DISK, "so that minibox can measure and read it")


def own_root(rootfs: Rootfs, binds: list[mounts.Mount], *, opened: bool = False) -> list[Op]:
    """Return the steps with which the container's own process assembles the root.

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
        op.open_(f"{rootfs.directory}/root/root", op.O_PATH_DIRECTORY, op.ROOT, "open the container's root directory")
    )
    return steps + _stack_below(rootfs)


def shared_root(rootfs: Rootfs, binds: list[mounts.Mount], namespace: str) -> list[Op]:
    """Return the steps for the root in a shared mount namespace.

    Mounts of others don't change, and at the container's end there is a single mount, with all below it, to undo.

    Args:
        namespace: the path of the shared namespace; "" for the caller's.
    """
    steps: list[Op] = []
    for slot, mount in enumerate(binds, op.FIRST_BIND):
        steps += mounts.open_bind(mount, slot)
    spread = op.MS_SLAVE if rootfs.follows else op.MS_PRIVATE
    return [
        *steps,
        op.open_tree(rootfs.path, op.ROOT, "clone the container's root, with the mounts below it", recursive=True),
        op.mount_attributes(op.ROOT, "mounts below it don't propagate", propagation=spread, recursive=True),
        op.send_fd(op.STATUS, op.ROOT, op.TAG_ROOT, "minibox undoes it at the container's end"),
        parent.take_root(rootfs.path, namespace),
        parent.send(op.TAG_ROOT, "the child may go on"),
        op.wait(op.TAG_ROOT, "wait until it is recorded"),
        op.attach(op.ROOT, op.HOST, rootfs.path, "mount it over itself, with all mounts below it"),
    ]


def _stage(rootfs: Rootfs) -> list[Op]:
    return [
        op.propagation("/", op.MS_REC | op.MS_PRIVATE, "keep our mounts off the host"),
        _tmpfs(f"{rootfs.directory}/root", "a place to assemble the layers, which vanishes with this namespace"),
    ]


def _tmpfs(path: str, why: str) -> Op:
    return op.mount("tmpfs", op.HOST, path, why, source="minibox", options="mode=0755", attributes=op.NOSUID)


def _stack(rootfs: Rootfs, id_mapped: bool, ids: tuple[int, int]) -> list[Op]:
    """Mount the overlay of the image's layers and the container's own in ``rootfs.directory``/root.

    Every layer is attached under a number: mount(2) takes one page of options, and a hundred long paths don't fit.
    """
    stage = f"{rootfs.directory}/root"
    steps = _stage(rootfs)
    layers = [(str(number), path) for number, path in enumerate(rootfs.lowerdirs)]
    own = [] if rootfs.disk else [("rw", rootfs.directory)]
    for name, path in [*layers, *own]:
        what = "the container's own layer" if name == "rw" else f"layer {len(layers) - int(name)} of {len(layers)}"
        if rootfs.images and name != "rw":
            steps.append(op.open_image(path, op.SCRATCH, f"mount {what}, a read-only file system in a file"))
        else:
            steps.append(op.open_tree(path, op.SCRATCH, f"make {what} a mount of its own"))
        if id_mapped:
            steps.append(op.id_map(op.SCRATCH, OWNERS))
        steps.append(op.attach(op.SCRATCH, op.HOST, f"{stage}/{name}", "under a short name"))
    steps.append(op.mkdir(op.HOST, f"{stage}/root", "mount point of the root"))
    if rootfs.disk:
        steps.append(rootfs.disk.mount(stage))
    if id_mapped:
        steps.append(
            op.set_fs_ids(*ids, "the overlay acts with the ids of the process that mounts it, which must be mapped")
        )
        steps.append(op.die_with_parent("a change of ids resets it"))
    if rootfs.disk:
        steps += rootfs.disk.directories(stage, ids)
    options = f"lowerdir={':'.join(name for name, _ in layers)},upperdir=rw/upper,workdir=rw/work"
    # `commit` needs all changes in the upperdir. Some kernels default otherwise, but never with userxattr.
    options += ",userxattr" if rootfs.userxattr else ",metacopy=off,redirect_dir=off"
    options += ",volatile" if rootfs.volatile else ""
    steps.append(op.mount_overlay(stage, options, "root", "layers read-only below, one read/write layer on top"))
    if rootfs.disk:
        steps.append(
            op.open_(f"{stage}/rw", op.O_PATH_DIRECTORY, op.SCRATCH, "open the container's own layer, to pass it on")
        )
    return steps


def _stack_below(rootfs: Rootfs) -> list[Op]:
    """Mount the overlays below the root. Devices in them can't be opened: they are the host's."""
    if not rootfs.stacked:
        return []
    stage = f"{rootfs.directory}/root"
    steps = [op.mount_attributes(op.ROOT, "a device of the host can't be opened", set_=op.NODEV)]
    for number, each in enumerate(rootfs.stacked):
        below, own, merged = (f"{what}-{number}" for what in ("below", "rw", "merged"))
        options = f"lowerdir={below},upperdir={own}/upper,workdir={own}/work"
        options += ",userxattr" if rootfs.userxattr else ",metacopy=off,redirect_dir=off"
        options += ",volatile" if rootfs.volatile else ""
        steps += [
            op.open_tree(each.lowerdir, op.SCRATCH, f"the host's {each.lowerdir}, without the mounts below it"),
            op.attach(op.SCRATCH, op.HOST, f"{stage}/{below}", "under a short name"),
            op.open_tree(each.directory, op.SCRATCH, f"what the container writes to {each.destination}"),
            op.attach(op.SCRATCH, op.HOST, f"{stage}/{own}", "under a short name"),
            op.mkdir(op.HOST, f"{stage}/{merged}", "a mount point"),
            op.mount_overlay(stage, options, merged, f"the host's {each.lowerdir} below, what is written on top"),
            op.open_tree(f"{stage}/{merged}", op.SCRATCH, "detach it"),
            op.mount_attributes(
                op.SCRATCH, "as the host's mount, and without devices", set_=each.attributes | op.NODEV
            ),
            op.attach(op.SCRATCH, op.ROOT, each.destination, "below the root, where the host has it"),
        ]
    return steps


def _open_path(rootfs: Rootfs) -> list[Op]:
    spread = op.MS_SLAVE if rootfs.follows else op.MS_PRIVATE
    return [
        op.propagation("/", op.MS_REC | spread, "keep our mounts off the host"),
        op.open_tree(rootfs.path, op.ROOT, "clone the container's root, with the mounts below it", recursive=True),
    ]


def _open_tree(rootfs: Rootfs) -> Op:
    return op.open_tree(rootfs.tree, op.ROOT, "make the container's tree a mount of its own")


def _tree_attributes(rootfs: Rootfs) -> list[Op]:
    """Return attributes for the container's tree, cloned as `op.ROOT`."""
    if rootfs.userxattr:
        return []  # an ordinary user's mounts are locked
    cleared = op.RDONLY | op.NOSUID | op.NODEV | op.NOEXEC | mounts.ATIME
    why = "allow what the image needs even if the host's mount forbids it, and don't let reads write access times"
    return [op.mount_attributes(op.ROOT, why, set_=op.NOATIME, clear=cleared)]
