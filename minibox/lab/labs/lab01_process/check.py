"""Lab 1: a process with two pids, a child, a zombie and a lost file."""

from __future__ import annotations

import os
from time import sleep

from minibox.lab.look import Machine, Process, named
from minibox.lab.requirement import require

FD = 9
CONTENT = b"still here\n"
LOOKS, PAUSE_S = 20, 0.1


def check(machine: Machine) -> None:
    processes = machine.processes()
    called = [each for each in processes if each.name.startswith("pid-")]
    require(called, f"no process is called pid-N; there are: {named(processes)}")
    mine = [each for each in called if each.name == f"pid-{each.pids[-1]}"]
    require(
        mine,
        f"the name {called[0].name} has another number than the pid of its process, which is {called[0].pids[-1]} in the "
        f"machine (and {called[0].pid} on the host)",
    )
    process = mine[0]
    children = [each for each in processes if each.parent == process.pid]
    wanted = f"child-{process.pids[-1]}"
    require(
        any(each.name == wanted and each.state != "Z" for each in children),
        f"{process} has no living child called {wanted}; its children are: {named(children)}",
    )
    require(
        _has_zombie(machine, process, wanted),
        f"{process} has no zombie: a child that has ended, and for which nobody has waited",
    )
    target = process.descriptors().get(FD, "")
    require(target, f"{process} has no descriptor {FD}; it has {sorted(process.descriptors())}")
    fd = os.open(f"/proc/{process.pid}/fd/{FD}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        require(os.fstat(fd).st_nlink == 0, f"the file of descriptor {FD} still has a name: {target}")
        content = os.read(fd, len(CONTENT) + 1)
    finally:
        os.close(fd)
    require(content == CONTENT, f"the lost file holds {content!r}, not {CONTENT!r}")


def _has_zombie(machine: Machine, process: Process, living: str) -> bool:
    """A child that was told to end may do so a moment after its parent said that it is ready."""
    for _ in range(LOOKS):
        children = [each for each in machine.processes() if each.parent == process.pid]
        if any(each.state == "Z" for each in children):
            return True
        if all(each.name == living for each in children):
            return False
        sleep(PAUSE_S)
    return False
