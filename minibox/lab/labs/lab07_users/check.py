"""Lab 7: root inside, an ordinary user outside."""

from __future__ import annotations

import os

from minibox.lab.look import Machine, Process, named
from minibox.lab.requirement import Missing, require

MAP = ((0, 1000, 1), (1, 2000, 100))
FILES = {"root": (0, 1000), "five": (5, 2004)}


def check(machine: Machine) -> None:
    found = list(machine.apart("user"))
    require(found, "no process has a user namespace of its own: CLONE_NEWUSER is missing")
    reasons = []
    for process in found:
        try:
            _check_process(machine, process)
            break
        except Missing as missing:
            reasons.append(str(missing))
    else:
        raise Missing(reasons[-1])
    for name, (inside, outside) in FILES.items():
        _check_file(machine, name, inside, outside)


def _check_process(machine: Machine, process: Process) -> None:
    for kind in ("uid", "gid"):
        wanted = [(first, machine.host_id(outer, kind), count) for first, outer, count in MAP]
        its = process.id_map(kind)
        require(its, f"the {kind}_map of {process} is empty: nobody has written it")
        require(
            its == wanted,
            f"the {kind}_map of {process} is {_words(machine, its, kind)}, not {_words(machine, wanted, kind)}",
        )
        field = "Uid" if kind == "uid" else "Gid"
        ids = {*map(int, process.fields[field].split())}
        require(
            ids == {machine.host_id(1000, kind)},
            f"{process} is not {'user' if kind == 'uid' else 'group'} 0 in its namespace: set{kind}(0) is missing",
        )
    require(
        "CAP_SYS_ADMIN" in process.capabilities(), f"{process} has no capabilities in its namespace: {named([process])}"
    )


def _words(machine: Machine, ranges: list[tuple[int, int, int]], kind: str) -> str:
    """Say a map in the machine's ids."""
    return ", ".join(f"{first} {_machine_id(machine, outer, kind)} {count}" for first, outer, count in ranges)


def _machine_id(machine: Machine, host_id: int, kind: str) -> int:
    for first, outside, count in machine.init.id_map(kind):
        if outside <= host_id < outside + count:
            return first + host_id - outside
    return -1


def _check_file(machine: Machine, name: str, inside: int, outside: int) -> None:
    try:
        found = os.stat(machine.path(f"/srv/drop/{name}"), follow_symlinks=False)
    except FileNotFoundError:
        raise Missing(f"there is no file /srv/drop/{name}") from None
    for kind, number in (("uid", found.st_uid), ("gid", found.st_gid)):
        seen = _machine_id(machine, number, kind)
        require(
            seen == outside,
            f"/srv/drop/{name} belongs to {'user' if kind == 'uid' else 'group'} {seen} of the machine, not to {outside}, which is "
            f"{inside} of the namespace",
        )
