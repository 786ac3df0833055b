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
    from minibox.plan.places import Places

DEVICE_TYPES = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}
# The devices of every container (config-linux.md, "Default Devices"), with their numbers.
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


def furnish(spec: Spec, mounts: list[Mount], places: Places, slot: int | None) -> list[Op]:
    """Return the steps that fill /dev, unless a bind mount replaces it. From here on its descriptor is held.

    Args:
        places: the places whose descriptors are held.
        slot: the slot of the first device that the mounter has made; None if the container's process makes them.
    """
    if any(mount.destination == "/dev" and mount.bind and not mount.remount for mount in mounts):
        return []
    own_ids = namespaces.has_own_ids(spec)
    steps: list[Op] = []
    if not places.is_held("/dev"):
        where = places.of("/dev")
        steps.append(op.mkdir(*where, "make a place for devices"))
        steps.append(
            op.open_in(*where, op.O_PATH_DIRECTORY, op.CONTAINERS_DEV, "find devices through this directory only")
        )
        places.hold("/dev", op.CONTAINERS_DEV, "")
    for path, (major, minor) in DEFAULT.items():
        why = "a device that every program expects"
        where, device_number = places.of(path), makedev(major, minor)
        # A user namespace can't make nodes. Elsewhere make a new one, so that the container can't change the host's
        # mode.
        if own_ids:
            steps.append(op.bind_device(path, *where, 0o020000, device_number, why + "; the host's own"))
        else:
            steps.append(op.mknod(*where, 0o020666, device_number, 0, 0, path, why))
    devices = spec.get("linux", {}).get("devices", [])
    for parent in sorted({device["path"].rpartition("/")[0] for device in devices} - {"", "/dev"}):
        steps.append(op.mkdir(*places.of(parent), "make a place for the device"))
    for number, device in enumerate(devices):
        path, why = device["path"], "a requested device"
        where = places.of(path)
        if slot is not None:
            steps.append(op.attach(slot + number, *where, why))
        elif own_ids and device["type"] != "p":
            steps.append(op.bind_device(path, *where, *_kind(device), why + "; the host's own"))
        else:
            steps.append(device_node(device, *where, {}))
    return steps + [op.symlink(target, *places.of(path), "programs expect it") for target, path in LINKS]


def _kind(device: LinuxDevice) -> tuple[int, int]:
    """Return the type of a device, as in a file's mode, and its number."""
    return DEVICE_TYPES[device["type"]], makedev(device.get("major", 0), device.get("minor", 0))


def device_node(device: LinuxDevice, root: int, path: str, linux: Linux) -> Op:
    """Make a node whose owner is mapped as ``linux`` says. For an actor outside the container's user namespace."""
    kind, number = _kind(device)
    mode = kind | device.get("fileMode", 0o666) & 0o7777
    uid = namespaces.on_host(device.get("uid", 0), linux.get("uidMappings", ()))
    gid = namespaces.on_host(device.get("gid", 0), linux.get("gidMappings", ()))
    return op.mknod(root, path, mode, number, uid, gid, device["path"], "a requested device")
