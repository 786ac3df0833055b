"""Device nodes and links in /dev as operations."""

from __future__ import annotations

from os import makedev

from minibox.plan import namespaces
from minibox.plan import operations as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.oci.runtime import Linux, LinuxDevice, Spec
    from minibox.plan.mounts import Mount
    from minibox.plan.operations import Op

DEVICE_TYPES = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}
# Those that every container has (config-linux.md, "Default Devices"), with their numbers.
DEFAULT = {
    "/dev/null": (1, 3),
    "/dev/zero": (1, 5),
    "/dev/full": (1, 7),
    "/dev/random": (1, 8),
    "/dev/urandom": (1, 9),
    "/dev/tty": (5, 0),
}
LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)


def furnish(spec: Spec, mounts: list[Mount], slot: int | None) -> list[Op]:
    """What /dev has, unless it is somebody else's directory.

    Args:
        slot: of the first device that the mounter has made; None when the container's process makes them.
    """
    if any(mount.destination.rstrip("/") == "/dev" and mount.bind for mount in mounts):
        return []
    own_ids = namespaces.has_own_ids(spec)
    steps: list[Op] = []
    if not any(mount.destination.rstrip("/") == "/dev" for mount in mounts):
        steps.append(op.mkdir(op.ROOT, "/dev", "devices are to be in it"))
    for path, (major, minor) in DEFAULT.items():
        why = "a device that every program may expect"
        # A user namespace can't make nodes. Else a node of its own: the mode of the host's is not the container's to change.
        if own_ids:
            steps.append(op.bind(path, path, why + "; the host's own"))
        else:
            steps.append(op.mknod(path, 0o020666, makedev(major, minor), 0, 0, why))
    devices = spec.get("linux", {}).get("devices", [])
    for parent in sorted({device["path"].rpartition("/")[0] for device in devices} - {"", "/dev"}):
        steps.append(op.mkdir(op.ROOT, parent, "a device is to be in it"))
    for number, device in enumerate(devices):
        path, why = device["path"], "a device that was asked for"
        if slot is not None:
            steps.append(op.attach(slot + number, op.ROOT, path, why))
        elif own_ids and device["type"] != "p":
            steps.append(op.bind(path, path, why + "; the host's own"))
        else:
            steps.append(device_node(device, path, op.ROOT, {}))
    return steps + [op.symlink(target, path, "programs expect it") for target, path in LINKS]


def device_node(device: LinuxDevice, path: str, root: int, linux: Linux) -> Op:
    """Make a node; its owner is mapped as ``linux`` says, by whoever isn't in the container's user namespace."""
    kind = DEVICE_TYPES[device["type"]]
    number = makedev(device.get("major", 0), device.get("minor", 0))
    mode = kind | device.get("fileMode", 0o666) & 0o7777
    uid = namespaces.on_host(device.get("uid", 0), linux.get("uidMappings", ()))
    gid = namespaces.on_host(device.get("gid", 0), linux.get("gidMappings", ()))
    return op.mknod(path, mode, number, uid, gid, "a device that was asked for", root=root)
