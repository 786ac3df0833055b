"""The mounts of a container that shares its mount namespace with other processes (one given by path, or the caller's).

All its mounts are below its root, which is mounted over ``root.path``. The kernel doesn't unmount them at the container's
end, so we write down the mount's id before we attach it, and unmount it later.
"""

from __future__ import annotations

import os

from minibox.base.files import close_descriptors
from minibox.linux import launcher
from minibox.linux.process import DONE, signatures
from minibox.plan import operations as op
from minibox.plan.encode import encode
from minibox.plan.explain import step_error
from minibox.plan.namespaces import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.plan.operations import Op

UNMOUNT = "unmount_root"
NS_GET_USERNS = 0xB701  # ioctl_ns(2)


def unmount_step(rootfs: str, path: str | None, pid: int, fd: int) -> Op:
    """The operation that undoes a container's mounts.

    Args:
        rootfs: its `root.path`.
        path: of the mount namespace that it joins; None for the caller's.
        pid: of its process.
        fd: of the mount that is its root.
    """
    found = os.stat(f"/proc/{pid}/ns/mnt")
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        mount_id = next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))
    return op.Op(
        UNMOUNT, (rootfs, path, found.st_dev, found.st_ino, mount_id), "the kernel doesn't unmount it", op.PARENT
    )


def unmount(rootfs: str, path: str | None, dev: int, ino: int, mount_id: int) -> None:
    """Unmount a container's root once none of its processes runs. The arguments are those of `unmount_step`.

    Raises:
        StepError: the kernel refuses.
    """
    namespace = _find(path or "", (dev, ino))
    if namespace < 0:
        return  # the namespace is gone, with all its mounts
    slots = [-1] * op.FIRST_BIND
    slots[op.NAMESPACES] = namespace
    steps: list[Op] = []
    try:
        slots[op.USERNS] = _owner(namespace)
        if slots[op.USERNS] >= 0:
            steps.append(op.setns(op.USERNS, NAMESPACES["user"], "it owns the mount namespace"))
        steps += [
            op.setns(op.NAMESPACES, NAMESPACES["mount"], "where the container's mounts are"),
            op.unmount(rootfs, mount_id, "the container's root, with all mounts below it"),
        ]
        _execute(steps, slots)
    finally:
        close_descriptors(*slots)


def _find(path: str, file: tuple[int, int]) -> int:
    """Open the mount namespace with this device and inode; return -1 if no process is in it, nor is it at ``path``."""
    processes = (f"/proc/{name}/ns/mnt" for name in os.listdir("/proc") if name.isdecimal())
    for candidate in (path or "/proc/self/ns/mnt", "/proc/self/ns/mnt", *processes):
        try:
            found = os.stat(candidate)
            if (found.st_dev, found.st_ino) == file:
                return os.open(candidate, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
    return -1


def _owner(namespace: int) -> int:
    """Open the user namespace that owns a namespace; return -1 if it is ours or out of reach."""
    from fcntl import ioctl

    try:
        fd = ioctl(namespace, NS_GET_USERNS)
    except OSError:
        return -1
    if os.path.samestat(os.fstat(fd), os.stat("/proc/self/ns/user")):
        os.close(fd)
        return -1
    return fd


def _execute(steps: list[Op], slots: list[int]) -> None:
    child = launcher.spawn(encode(steps, signatures()), 0, slots, len(steps))
    try:
        child.wait()
        state, index, errno, _ = child.progress()
        if state != DONE:
            raise step_error(index, len(steps), steps[index], errno)
    finally:
        child.close()
