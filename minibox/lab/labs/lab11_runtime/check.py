"""Lab 11: a program in a container that the student's runtime has made of an image."""

from __future__ import annotations

import os

from minibox.lab.look import Machine, Process, named
from minibox.lab.requirement import require
from minibox.lab.roots import check_machine_unchanged, check_own_root, check_ways_back, is_command
from minibox.linux.capabilities import DEFAULT

KINDS = {"pid": "CLONE_NEWPID", "mnt": "CLONE_NEWNS", "uts": "CLONE_NEWUTS", "ipc": "CLONE_NEWIPC"}
NAME, ENVIRONMENT = "container", {"PATH": "/usr/bin:/bin", "APP": "yes"}
COMMAND = "100000"  # the last argument of the command


def check(machine: Machine) -> None:
    check_machine_unchanged(machine)
    living = [each for each in machine.processes() if each.state != "Z"]
    found = [each for each in living if is_command(each, COMMAND)]
    require(found, f"the command in the arguments isn't executed; there are {named(living)}")
    process = found[0]
    for kind, flag in KINDS.items():
        require(machine.is_apart(process, kind), f"{process} shares the machine's {kind} namespace: {flag} is missing")
    within = check_own_root(machine, process)
    check_ways_back(process, within)
    _check_files(process)
    require(within.hostname == NAME, f"the host name of {process} is {within.hostname!r}, not {NAME!r}")
    _check_surroundings(process)
    _check_privileges(process)


def _check_files(process: Process) -> None:
    root = f"/proc/{process.pid}/root"
    require(os.path.exists(f"{root}/srv/data"), f"the root of {process} lacks /srv/data, which the second layer has")
    require(not os.path.lexists(f"{root}/etc/old"), "/etc/old is there: the second layer removes it by a whiteout")
    require(not os.path.lexists(f"{root}/etc/.wh.old"), "/etc/.wh.old is a whiteout, no file of the container")
    with open(f"{root}/etc/name", "rb") as file:
        name = file.read(100)
    require(name == b"app\n", f"/etc/name holds {name!r}: the second layer comes on top of the first")


def _check_surroundings(process: Process) -> None:
    srv = os.stat(f"/proc/{process.pid}/root/srv")
    require(
        process.place("cwd") == (srv.st_dev, srv.st_ino), f"the working directory of {process} is not /srv, the image's"
    )
    its = process.environment()
    for name, value in ENVIRONMENT.items():
        require(
            its.get(name) == value, f"the environment of {process} lacks {name}={value}, which the image's config has"
        )
    # A shell sets some by itself.
    more = sorted(its.keys() - ENVIRONMENT.keys() - {"PWD", "OLDPWD", "SHLVL", "_", "HOME", "HOSTNAME", "TERM"})
    require(not more, f"the environment of {process} has {', '.join(more)}, which come from the machine")


def _check_privileges(process: Process) -> None:
    for kind, name in (("Eff", "effective"), ("Prm", "permitted"), ("Bnd", "bounding")):
        extra = sorted(process.capabilities(kind) - {*DEFAULT})
        require(not extra, f"the {name} set of {process} has {extra[0] if extra else ''}, which Docker doesn't give")
    require(process.fields["NoNewPrivs"] == "1", f"{process} may still get new privileges: no_new_privs is missing")
