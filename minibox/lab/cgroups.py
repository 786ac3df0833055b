"""A machine's control groups, from outside."""

from __future__ import annotations

import os

from minibox.base.lines import lines_of
from minibox.errors import suppress
from minibox.lab.look import Process
from minibox.linux.mount_table import MOUNTINFO, unescaped

CONTROLLERS = ("memory", "pids", "cpu")
LEAF = "machine"  # where a machine's script puts its own processes on v2: a group that limits others can't have any
#: What the owner of a group may change, by cgroups(7), "Delegation"; its own limits are not among them.
GIVEN = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "tasks")


def directories(process: Process) -> dict[str, str]:
    """Return the machine's own directory of the host for each controller: of v1 where that has it, else of v2."""
    mounts: dict[str, str] = {}
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        for line in lines_of(file.read()):
            fields = line.split(" ")
            dash = fields.index("-", 6)
            if fields[dash + 1] == "cgroup2":
                mounts.setdefault("", unescaped(fields[4]))
            elif fields[dash + 1] == "cgroup":
                for word in fields[dash + 3].split(","):
                    mounts.setdefault(word, unescaped(fields[4]))
    places = {}
    for line in lines_of(process.read("cgroup")):
        _, names, path = line.split(":", 2)
        places.update(dict.fromkeys(names.split(","), path))
    found = {}
    for controller in CONTROLLERS:
        kind = controller if controller in places and controller in mounts else ""
        if kind in mounts and kind in places:
            found[controller] = (mounts[kind] + places[kind].rstrip("/")).removesuffix(f"/{LEAF}")
    return found


def delegate(pid: int) -> None:
    """Give the control groups of a machine to its root. An ordinary user's belong to him already."""
    if os.geteuid() != 0:
        return
    init = Process(pid)
    uid, gid = (init.id_map(kind)[0][1] for kind in ("uid", "gid"))
    for directory in dict.fromkeys(directories(init).values()):
        for path in (directory, *(f"{directory}/{name}" for name in GIVEN)):
            with suppress(FileNotFoundError):
                os.chown(path, uid, gid)


def read(directory: str, file: str) -> str:
    """Return the content of a file; "" if there is none."""
    try:
        with open(f"{directory}/{file}", encoding="ascii") as opened:
            return opened.read().strip()
    except FileNotFoundError:
        return ""
