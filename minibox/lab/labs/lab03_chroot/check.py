"""Lab 3: one process has left a chroot, another can't."""

from __future__ import annotations

import os
from stat import S_ISDIR

from minibox.lab.look import Machine, Process, named
from minibox.lab.requirement import require

WAYS_OUT = ("CAP_SYS_CHROOT", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE")


def check(machine: Machine) -> None:
    outside, inside = machine.init.place("root"), _place(machine.path("/jail"))
    living = [each for each in machine.processes() if each.state != "Z"]
    left = [each for each in living if each.place("root") == outside]
    below = [each for each in living if each.place("root") not in (outside, inside)]
    require(
        left or not below,
        f"the root directory of {named(below)} is neither the machine's nor /jail: it is deeper inside, and `..` stops there",
    )
    require(left, f"nobody has left /jail: {named(living)}")
    stayed = [each for each in living if each.place("root") == inside]
    require(stayed, f"no process is in /jail any more: {named(living)}")
    for process in stayed:
        _check_prisoner(process)


def _place(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _check_prisoner(process: Process) -> None:
    for name in WAYS_OUT:
        require(name not in process.capabilities("Eff"), f"{process} in /jail still has {name}")
        require(
            name not in process.capabilities("Prm") | process.capabilities("Bnd"),
            f"{process} in /jail gets {name} back at an execve, or by capset: it is in its permitted or bounding set",
        )
    reached = {each.id for each in process.mounts()}
    require(process.mount_id("cwd") in reached, f"the working directory of {process} is outside /jail")
    for number, target in sorted(process.descriptors().items()):
        if S_ISDIR(os.stat(f"/proc/{process.pid}/fd/{number}").st_mode):
            require(
                process.mount_id(f"fd/{number}") in reached,
                f"descriptor {number} of {process} is a directory outside /jail ({target})",
            )
