"""mount(2), umount(2), pivot_root(2) and mknod(2)."""

from __future__ import annotations

import os
from errno import EBUSY, EINVAL, ENODEV, ENOENT, ENOTBLK, ENOTDIR, EPERM, EROFS

from minibox._native import ffi, lib
from minibox.linux.calls.failure import check_flags, failure, flags_in_words, needs, path_argument
from minibox.linux.calls.flags import MOUNT, MS_BIND, MS_REMOUNT, PROPAGATION, UMOUNT

LAB_MOUNTS, LAB_PIVOT_ROOT = 4, 5
_NO_ADMIN = "unshare(CLONE_NEWUSER | CLONE_NEWNS) gives you a mount namespace in which you may"
_LOCKED = (
    "you may mount, but this is locked: mounts that came from a more privileged namespace can't be changed or uncovered, "
    "and a new proc or sysfs can't show more than the ones you see; or the file system refuses user namespaces"
)


def mount(source: str, target: str | os.PathLike[str], fstype: str = "", flags: int = 0, data: str = "") -> None:
    """Attach a file system, or a part of one, at ``target``: mount(2).

    ===========================  =====================================================
    ``mount("tmpfs", "/x", "tmpfs", 0, "size=1m")``    a new file system
    ``mount("proc", "/proc", "proc")``                 the processes of *your* PID namespace
    ``mount("/a", "/b", flags=MS_BIND)``               /a seen at /b, too
    ``mount("", "/", flags=MS_PRIVATE | MS_REC)``      what is mounted here stays here
    ``mount("", "/b", flags=MS_REMOUNT | MS_BIND | MS_RDONLY)``   make a bind mount read-only
    ===========================  =====================================================

    Args:
        source: a device, a directory for MS_BIND, or any word for a file system without a device.
        target: the mount point, which must exist.
        fstype: such as ``tmpfs``, ``proc``, ``overlay``; "" with MS_BIND, MS_MOVE, MS_REMOUNT and the propagation flags.
        flags: ``MS_*``, joined by ``|``.
        data: options of the file system, separated by commas.

    Raises:
        PermissionError: EPERM: it needs CAP_SYS_ADMIN in the user namespace that owns your mount namespace; or it is a
            proc that would show what is hidden from you, or a file system that user namespaces may not mount.
        OSError: EINVAL: wrong options, or ``source`` is no mount point though it must be. EBUSY: it is mounted already.
            ENODEV: the kernel has no such file system. ENOTBLK: ``source`` must be a device.
        FileNotFoundError: ENOENT: ``target`` or ``source`` is missing.
        ValueError, TypeError: an argument is invalid.
    """
    check_flags("mount", flags, MOUNT)
    if not isinstance(fstype, str) or not isinstance(data, str):
        raise TypeError(f"mount: fstype and data are strings, not {fstype!r} and {data!r}")
    if (flags & PROPAGATION) & ((flags & PROPAGATION) - 1):
        raise ValueError("mount: one of MS_SHARED, MS_PRIVATE, MS_SLAVE and MS_UNBINDABLE at a time")
    if not fstype and not flags & (MS_BIND | MS_REMOUNT | PROPAGATION | MOUNT["MS_MOVE"]):
        raise ValueError('mount: say which file system, such as fstype="tmpfs"; or flags=MS_BIND for a directory')
    from_path, to_path = path_argument("mount", "source", source), path_argument("mount", "target", target)
    if lib.mb_mount(from_path, to_path, fstype.encode() or ffi.NULL, flags, os.fsencode(data) or ffi.NULL):
        tried = f"mount {fstype or flags_in_words(flags, MOUNT)} on {os.fsdecode(to_path)}"
        wants = {
            EPERM: needs("CAP_SYS_ADMIN", _LOCKED, instead=_NO_ADMIN),
            EINVAL: "the options don't fit the file system; or the source of MS_MOVE, MS_REMOUNT or a propagation flag "
            "is no mount point, or has locked mounts below it, which MS_BIND | MS_REC takes along",
            EBUSY: "the same is mounted there already, or it is in use",
            ENODEV: f"this kernel has no file system {fstype!r}: see /proc/filesystems",
            ENOENT: f"{os.fsdecode(to_path)} or the source is missing: make it first",
            ENOTDIR: "a directory is mounted on a directory, a file on a file",
            ENOTBLK: f"{fstype} lies on a device, and {source!r} is none",
        }
        raise failure("mount", tried, ffi.errno, wants, LAB_MOUNTS)


def umount(target: str | os.PathLike[str], flags: int = 0) -> None:
    """Detach what is mounted at ``target``: umount2(2).

    Args:
        flags: ``MNT_DETACH`` takes it out of the tree now, and frees it when nobody uses it any more.

    Raises:
        PermissionError: EPERM: it needs CAP_SYS_ADMIN in the user namespace that owns your mount namespace.
        OSError: EBUSY: a file of it is open, a process is in it, or something is mounted on it. EINVAL: nothing is
            mounted there, or it is locked: it came from a more privileged namespace.
        ValueError, TypeError: an argument is invalid.
    """
    check_flags("umount", flags, UMOUNT)
    path = path_argument("umount", "target", target)
    if lib.umount2(path, flags):
        wants = {
            EPERM: needs("CAP_SYS_ADMIN", "the mount belongs to a more privileged namespace", instead=_NO_ADMIN),
            EINVAL: "nothing is mounted there, or it is locked: it came with others from a more privileged namespace",
            EBUSY: "a process works in it or has a file of it open, or something is mounted on it; MNT_DETACH takes it "
            "away from view now",
        }
        raise failure("umount", f"unmount {os.fsdecode(path)}", ffi.errno, wants, LAB_MOUNTS)


def pivot_root(new_root: str | os.PathLike[str], put_old: str | os.PathLike[str]) -> None:
    """Make ``new_root`` the root of your mount namespace, and hang the old root at ``put_old``: pivot_root(2).

    Unlike chroot(2) it changes the namespace, so that the old root can be unmounted: then it can't be reached any more.
    ``pivot_root(".", ".")`` in the new root stacks the old one on top of it, for ``umount(".", MNT_DETACH)``.

    Args:
        new_root: a mount point, not on the same mount as the present root: ``mount(new_root, new_root, flags=MS_BIND)``
            makes one of a directory.
        put_old: a directory at or below ``new_root``.

    Raises:
        PermissionError: EPERM: it needs CAP_SYS_ADMIN in the user namespace that owns your mount namespace.
        OSError: EINVAL: ``new_root`` is no mount point, ``put_old`` is not below it, or the present root, ``new_root``
            or the mount that it lies on is shared. EBUSY: one of them is the present root.
        NotADirectoryError, FileNotFoundError: one of them is no directory.
        ValueError, TypeError: an argument is invalid.
    """
    new, old = path_argument("pivot_root", "new_root", new_root), path_argument("pivot_root", "put_old", put_old)
    if lib.mb_pivot_root(new, old):
        wants = {
            EPERM: needs("CAP_SYS_ADMIN", "a filter (seccomp) forbids it", instead=_NO_ADMIN),
            EINVAL: f"{os.fsdecode(new)} must be a mount point (bind it on itself), {os.fsdecode(old)} at or below it, and "
            'the mounts private: mount("", "/", flags=MS_PRIVATE | MS_REC)',
            EBUSY: "one of them is on the present root's mount: bind the new root on itself first",
        }
        tried = f"make {os.fsdecode(new)} the root, with the old one at {os.fsdecode(old)}"
        raise failure("pivot_root", tried, ffi.errno, wants, LAB_PIVOT_ROOT)


def mknod(path: str | os.PathLike[str], mode: int, device: int = 0) -> None:
    """Make a file that is a device, a FIFO, a socket or empty: mknod(2).

    Args:
        mode: kind and permissions, such as ``stat.S_IFCHR | 0o666``.
        device: ``os.makedev(major, minor)`` for a device.

    Raises:
        PermissionError: EPERM: devices need CAP_MKNOD in the *first* user namespace: nobody in another one may make
            them, root of it neither. Bind the host's device over an empty file, as container runtimes do.
        FileExistsError, FileNotFoundError: ``path`` is there already, or its directory isn't.
        TypeError: an argument is invalid.
    """
    raw = path_argument("mknod", "path", path)
    try:
        os.mknod(raw, mode, device)
    except OSError as error:
        wants = {
            EPERM: "a device needs CAP_MKNOD in the host's own user namespace, whatever you have in yours: bind the host's "
            "device over an empty file instead",
            EROFS: "it is mounted read-only",
        }
        raise failure("mknod", f"make the device {os.fsdecode(raw)}", error.errno or 0, wants) from None
