"""Lab 12: two ways out of a container, and a container without them."""

from __future__ import annotations

import os

from minibox.lab.look import Machine, Process, looked_at, named
from minibox.lab.requirement import require

ATTACK = ["sh", "/lab/container", "/opt/lab/attack"]
KINDS = {"mnt": "mount", "pid": "PID", "uts": "UTS"}


def check(machine: Machine) -> None:
    assert machine.start
    require(_there(machine, "by-descriptor"), "there is no file /root/by-descriptor on the host")
    require(_commands(machine), "hostd has carried out nothing: nobody has told it anything on its socket")
    require(_there(machine, "by-socket"), "there is no file /root/by-socket on the host")
    require(os.path.isfile(machine.path("/lab/container")), "there is no /lab/container, in which the holes are closed")
    before = _commands(machine)
    known = {each.pid for each in machine.processes()}
    attack = machine.start(ATTACK, "/lab/container")
    attack.wait_ready()
    new = (each for each in machine.processes() if each.pid not in known)
    arguments = looked_at(new, lambda each: each.read("cmdline").split("\0"))
    found = [each for each, words in arguments.items() if words[1:2] == ATTACK[2:]]
    require(found, f"/lab/container doesn't run its command; there are {named(machine.processes())}")
    _check_container(machine, found[0])
    require(_commands(machine) == before, "from /lab/container one still reaches hostd: its socket is mounted there")
    require(
        not _there(machine, "by-attack"),
        "from /lab/container one still makes files on the host: a descriptor of a directory is open there",
    )


def _there(machine: Machine, name: str) -> bool:
    return os.path.exists(machine.path(f"/root/{name}"))


def _commands(machine: Machine) -> int:
    """How many commands the host's daemon has carried out: it calls itself by that number."""
    for pid in machine.before["pids"]:
        process = Process(pid)
        if process.name.startswith("hostd-"):
            return int(process.name.partition("-")[2])
    require(False, "the host's daemon has ended")
    return 0


def _check_container(machine: Machine, process: Process) -> None:
    for kind, name in KINDS.items():
        require(
            machine.is_apart(process, kind),
            f"the command of /lab/container runs in the host's {name} namespace: no container",
        )
    within = process.within()
    require(within.hostname == "container", f"the host name in /lab/container is {within.hostname!r}, not 'container'")
    require(process.place("root") != machine.init.place("root"), "the root of /lab/container is the host's")
    capabilities = process.capabilities("Bnd") | process.capabilities("Eff")
    require(not capabilities, f"the command of /lab/container has capabilities: {', '.join(sorted(capabilities)[:3])}")
