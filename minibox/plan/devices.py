"""Device nodes as operations."""

from __future__ import annotations

from os import makedev

from minibox.plan import operations as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.oci.runtime import LinuxDevice
    from minibox.plan.operations import Op

DEVICE_TYPES = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}


def device_node(device: LinuxDevice, path: str, root: int, ids: tuple[int, int]) -> Op:
    """Make a node; ``ids`` are those of the container's root, from which its owner is counted."""
    kind = DEVICE_TYPES[device["type"]]
    number = makedev(device.get("major", 0), device.get("minor", 0))
    mode = kind | device.get("fileMode", 0o666) & 0o7777
    uid, gid = ids[0] + device.get("uid", 0), ids[1] + device.get("gid", 0)
    return op.mknod(path, mode, number, uid, gid, "a device that was asked for", root=root)
