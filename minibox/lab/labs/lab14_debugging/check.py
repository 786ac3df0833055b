"""Lab 14: a server that starts in its container."""

from __future__ import annotations

import os

from minibox.lab.look import Machine, Process, named
from minibox.lab.requirement import require
from minibox.lab.roots import place_of

PROGRAMS = f"{os.path.dirname(__file__)}/machine"
STATE_BYTES, FILE_BYTES_MAX = 102400, 1 << 20


def check(machine: Machine) -> None:
    found = [each for each in machine.processes() if each.name == "server"]
    require(found, f"no server runs; there are {named(machine.processes())}")
    process = found[0]
    require(
        machine.is_apart(process, "mnt") and machine.is_apart(process, "pid"),
        f"{process} doesn't run in the container: start-container is missing",
    )
    require(process.place("root") == place_of(machine.path("/srv/rootfs")), f"the root of {process} is not /srv/rootfs")
    _check_unchanged(f"/proc/{process.pid}/root/bin/server", "server")
    _check_unchanged(machine.path("/opt/lab/start-container"), "start-container")
    root = [each for each in process.mounts() if each.point == "/"][-1]
    require("ro" in root.options, f"the root of {process} is writable: a tmpfs on /run does as well")
    limit = _file_limit(process)
    require(
        limit is not None and limit <= FILE_BYTES_MAX,
        f"the files of {process} may have {'any size' if limit is None else f'{limit} bytes'}: at most {FILE_BYTES_MAX} are asked for",
    )
    state = f"/proc/{process.pid}/root/run/state"
    require(
        os.path.exists(state) and os.stat(state).st_size == STATE_BYTES, f"{process} has not written all of /run/state"
    )


def _check_unchanged(path: str, name: str) -> None:
    with open(path, encoding="utf-8") as file, open(f"{PROGRAMS}/{name}", encoding="utf-8") as ours:
        require(file.read() == ours.read(), f"{name} was changed: put right what it needs")


def _file_limit(process: Process) -> int | None:
    for line in process.read("limits").splitlines():
        if line.startswith("Max file size"):
            soft = line.split()[3]
            return None if soft == "unlimited" else int(soft)
    return None
