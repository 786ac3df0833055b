"""Lab 5: a process whose mount namespace has another root, and no way back."""

from __future__ import annotations

from minibox.lab.look import Machine, named
from minibox.lab.requirement import require
from minibox.lab.roots import check_machine_unchanged, check_own_root, check_ways_back, place_of


def check(machine: Machine) -> None:
    check_machine_unchanged(machine)
    found = list(machine.apart("mnt"))
    require(found, "no process has a mount namespace of its own: unshare(CLONE_NEWNS) is missing")
    wanted = place_of(machine.path("/rootfs"))
    moved = [each for each in found if each.place("root") == wanted]
    require(moved, f"the root of {named(found)} is not the content of /rootfs")
    check_ways_back(moved[-1], check_own_root(machine, moved[-1]))
