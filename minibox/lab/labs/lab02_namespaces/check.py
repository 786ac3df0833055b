"""Lab 2: number 1 of a PID namespace, with a host name of its own, and a process that joined."""

from __future__ import annotations

from minibox.lab.look import Machine, Process, named
from minibox.lab.requirement import Missing, require

NAME = "inside"


def check(machine: Machine) -> None:
    hostname, before = machine.init.within().hostname, machine.before["hostname"]
    require(
        hostname == before,
        f"the machine's own host name has changed from {before} to {hostname}: sethostname came before a UTS namespace of one's own",
    )
    in_pid = list(machine.apart("pid"))
    if not in_pid:
        waiting = [each for each in machine.processes() if _awaits_child(machine, each)]
        require(
            not waiting,
            f"{named(waiting)} has called unshare(CLONE_NEWPID), but is not in the new PID namespace: its next child will be",
        )
        require(False, "no process has a PID namespace of its own: CLONE_NEWPID, and then a child, is missing")
    both = [each for each in in_pid if machine.is_apart(each, "uts")]
    require(
        both,
        f"{named(in_pid)} has a PID namespace of its own, but shares the machine's UTS namespace: CLONE_NEWUTS is missing",
    )
    firsts = [each for each in both if each.pids[-1] == 1]
    require(firsts, f"number 1 of the PID namespace is not in the UTS namespace of {named(both)}")
    reasons = []
    for first in firsts:  # there may be one of an earlier try
        try:
            _check_pair(first, both)
            return
        except Missing as missing:
            reasons.append(str(missing))
    raise Missing(reasons[-1])


def _check_pair(first: Process, both: list[Process]) -> None:
    inside = first.within().hostname
    require(inside == NAME, f"the host name of {first} is {inside!r}, not {NAME!r}")
    others = [each for each in both if each.pids[-1] != 1 and _same(first, each)]
    require(others, f"{first} is alone in its namespaces: nobody has joined both of them (setns, nsenter)")
    joined = [each for each in others if not _same_pid(first, each.parent)]
    require(
        joined,
        f"{named(others)} was born in the PID namespace of {first}: its parent is or was in there, too. A process from outside must "
        "join, and stay",
    )


def _awaits_child(machine: Machine, process: Process) -> bool:
    number = process.namespace("pid_for_children")
    return number != 0 and number != process.namespace("pid") or process.link("ns/pid_for_children") == ""


def _same(one: Process, other: Process) -> bool:
    return all(one.namespace(kind) == other.namespace(kind) for kind in ("pid", "uts"))


def _same_pid(first: Process, pid: int) -> bool:
    try:
        return Process(pid).namespace("pid") == first.namespace("pid")
    except OSError:
        return False
