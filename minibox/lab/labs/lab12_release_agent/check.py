"""Lab 12, on a real host: a program that the kernel starts there, and a container from which nobody can have it do so."""

from __future__ import annotations

import os
import tomllib
from typing import Any

from minibox.lab.look import Machine, Process
from minibox.lab.real_host import HIERARCHY, RealHost
from minibox.lab.requirement import Missing, require

SETTINGS = "/lab/machine.toml"
MAY_SAY = {"userns": str, "security_opt": list, "cap_add": list, "cap_drop": list}
FIRST = 1  # the host's first process
ATTACK = ["/opt/lab/attack"]


def check(machine: Machine) -> None:
    host = machine.real_host
    assert host and machine.start_another
    _check_agent(host)
    settings = _settings(machine)
    host.clear()
    attack = machine.start_another(ATTACK, settings, "the program in the container of machine.toml")
    attack.wait_ready()
    require(not host.release_agent(), "from the container of machine.toml one still writes release_agent")
    lost = machine.init.capabilities("Bnd") - Process(attack.pid).capabilities()
    require(not lost, f"root of the container of machine.toml has lost capabilities: {', '.join(sorted(lost)[:3])}")


def _check_agent(host: RealHost) -> None:
    agent = host.release_agent()
    require(agent, f"nobody has written to release_agent in the root of the hierarchy {HIERARCHY}")
    path = f"/proc/{FIRST}/root{agent}"
    require(os.path.isfile(path), f"release_agent is {agent}, and the host has no such file")
    require(os.access(path, os.X_OK), f"release_agent is {agent}, which the host can't execute: chmod 755")
    groups = host.groups()
    require(groups, f"the hierarchy {HIERARCHY} has no group but its root: none can become empty")
    for name, (tells, pids) in groups.items():
        require(tells, f"notify_on_release of the group {name} is 0: the kernel doesn't tell when it becomes empty")
        require(not pids, f"processes live in the group {name}: it isn't empty")
    require(
        host.started(),
        f"the kernel hasn't started {agent}, or it has ended: a process must have lived in the group and ended, and what "
        "the kernel starts must stay",
    )


def _settings(machine: Machine) -> dict[str, Any]:
    """Read the student's machine.toml, which must say nothing but what a container without holes may be."""
    path = machine.path(SETTINGS)
    require(os.path.isfile(path), f"there is no {SETTINGS}, in which the hole is closed")
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Missing(f"{SETTINGS} is no TOML: {error}") from None
    for name, value in found.items():
        require(name in MAY_SAY, f"{SETTINGS} may say {', '.join(MAY_SAY)}, and not {name}")
        right = isinstance(value, MAY_SAY[name]) and all(isinstance(each, str) for each in value)
        require(right, f"{SETTINGS}: {name} is a {'string' if MAY_SAY[name] is str else 'list of strings'}")
    return found
