"""What labs ask of a process with a root file system of its own."""

from __future__ import annotations

import os
from stat import S_ISDIR

from minibox.lab.look import Inside, Machine, Process
from minibox.lab.requirement import require


def place_of(path: str) -> tuple[int, int]:
    """Return device and inode of a path, as `Process.place` does."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def is_command(process: Process, last: str) -> bool:
    """Is that ``sh -c "echo ready; exec sleep LAST"``, or the sleep that it has become meanwhile?"""
    words = process.read("cmdline").split("\0")[:-1]
    return bool(words) and words[0].rpartition("/")[2] in ("sh", "sleep") and words[-1].endswith(last)


def check_machine_unchanged(machine: Machine) -> None:
    """Ask that the mounts of the machine are as before."""
    now, before = machine.facts()["mounts"], machine.before["mounts"]
    changed = sorted({*now} ^ {*before})
    require(
        now == before,
        f"the machine's own mounts have changed: {changed[0] if changed else now}; a mount namespace of one's own comes first",
    )


def check_own_root(machine: Machine, process: Process) -> Inside:
    """Ask that the root of a process is that of its mount namespace, and the machine's old one is nowhere in it."""
    within = process.within()
    require(
        within.root == process.place("root"),
        f"the root of {process} is not the root of its mount namespace: that is what chroot does, and pivot_root is missing",
    )
    root = next(each for each in reversed(machine.init.within().mounts) if each.point == "/")
    for each in within.mounts:
        require(
            (each.device, each.root) != (root.device, root.root),
            f"the old root is still mounted in the namespace of {process}, at {each.point}: umount is missing",
        )
    require(
        any(each.point == "/proc" and each.fs_type == "proc" for each in process.mounts()),
        f"{process} has no proc mounted on /proc",
    )
    return within


def check_ways_back(process: Process, within: Inside) -> None:
    """Ask that neither the working directory nor a descriptor of a process leads out of its mount namespace."""
    known = {each.id for each in within.mounts}
    require(
        process.mount_id("cwd") in known,
        f"the working directory of {process} is still in the old root: chdir is missing",
    )
    for number, target in sorted(process.descriptors().items()):
        if S_ISDIR(os.stat(f"/proc/{process.pid}/fd/{number}").st_mode):
            require(
                process.mount_id(f"fd/{number}") in known,
                f"descriptor {number} of {process} still leads into the old root ({target}): close it",
            )
