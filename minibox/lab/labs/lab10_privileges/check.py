"""Lab 10: a program that gives its privileges up for good."""

from __future__ import annotations

import json
import os
from typing import Any

from minibox.lab.look import Machine, Process
from minibox.lab.requirement import require

KEPT = {"CAP_NET_BIND_SERVICE"}
EPERM = 1
PROBE = os.path.join(os.path.dirname(__file__), "probe.py")


def check(machine: Machine) -> None:
    assert machine.answer
    with open(PROBE, encoding="utf-8") as file:
        probe = file.read()
    process = next((each for each in machine.processes() if each.read("cmdline").split("\0")[2:3] == [probe]), None)
    require(process, "the command in the arguments isn't executed: os.execvp is missing")
    assert process is not None
    _check_capabilities(process)
    require(process.fields["NoNewPrivs"] == "1", f"{process} may still get new privileges: no_new_privs is missing")
    require(process.fields["Seccomp"] == "2", f"{process} has no filter of system calls of its own")
    found: dict[str, Any] = next(
        (json.loads(line.partition(" ")[2]) for line in machine.answer.lines() if line.startswith("found ")), {}
    )
    for call in ("mkdir", "mkdirat", "unshare"):
        number = found.get(call, 0)
        require(number, f"{process} may call {call}: the filter doesn't refuse it")
        require(number == EPERM, f"{call} fails with {os.strerror(number)}, not with EPERM")
    require(not found["works"], f"{process} can't make files and processes any more: {found['works']}")


def _check_capabilities(process: Process) -> None:
    for kind, name in (("Eff", "effective"), ("Prm", "permitted"), ("Bnd", "bounding")):
        its = process.capabilities(kind)
        extra, lost = sorted(its - KEPT), sorted(KEPT - its)
        require(
            not extra,
            f"the {name} set of {process} has {len(extra)} capabilities too many, such as {extra[0] if extra else ''}",
        )
        require(not lost, f"the {name} set of {process} lacks {', '.join(lost)}")
