"""Lab 5: a process whose mount namespace has another root, and no way back."""

from __future__ import annotations

import os
from stat import S_ISDIR

from minibox.lab.look import Inside, Machine, Process, named
from minibox.lab.requirement import require


def check(machine: Machine) -> None:
    now, before = machine.facts()["mounts"], machine.before["mounts"]
    changed = sorted({*now} ^ {*before})
    require(
        now == before,
        f"the machine's own mounts have changed: {changed[0] if changed else now}; a mount namespace of one's own comes first",
    )
    found = list(machine.apart("mnt"))
    require(found, "no process has a mount namespace of its own: unshare(CLONE_NEWNS) is missing")
    moved = [each for each in found if _is_new_root(machine, each)]
    require(moved, f"the root of {named(found)} is not the content of /rootfs")
    process = moved[-1]
    within = process.within()
    require(
        within.root == process.place("root"),
        f"the root of {process} is not the root of its mount namespace: that is what chroot does, and pivot_root is missing",
    )
    _check_old_root(machine, process, within)
    require(
        any(each.point == "/proc" and each.fs_type == "proc" for each in process.mounts()),
        f"{process} has no proc mounted on /proc",
    )
    _check_ways_back(process, within)


def _is_new_root(machine: Machine, process: Process) -> bool:
    return process.place("root") == _place(machine.path("/rootfs"))


def _place(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _check_old_root(machine: Machine, process: Process, within: Inside) -> None:
    """The machine's root is an overlay: no mount of the namespace may show its top directory, or what was mounted on it."""
    root = next(each for each in reversed(machine.init.within().mounts) if each.point == "/")
    for each in within.mounts:
        require(
            (each.device, each.root) != (root.device, root.root),
            f"the old root is still mounted in the namespace of {process}, at {each.point}: umount is missing",
        )


def _check_ways_back(process: Process, within: Inside) -> None:
    known = {each.id for each in within.mounts}
    require(
        process.mount_id("cwd") in known,
        f"the working directory of {process} is still in the old root: chdir is missing",
    )
    for number, target in sorted(process.descriptors().items()):
        path = f"/proc/{process.pid}/fd/{number}"
        if S_ISDIR(os.stat(path).st_mode):
            require(
                process.mount_id(f"fd/{number}") in known,
                f"descriptor {number} of {process} still leads into the old root ({target}): close it",
            )
