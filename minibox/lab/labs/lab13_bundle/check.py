"""Lab 13: a bundle that two runtimes run."""

from __future__ import annotations

import os
import signal

from minibox.lab.look import Machine, Process, named
from minibox.lab.requirement import Missing, require
from minibox.lab.roots import is_command

BUNDLE, IN_BUNDLE = "/srv/bundle", 'cd /srv/bundle && exec "$@"'
RUNTIMES = {
    "minibox-oci": ["minibox-oci", "run", "--no-new-keyring", "lab"],
    "crun": ["crun", "--cgroup-manager=disabled", "run", "--no-new-keyring", "lab"],
}
COMMAND = "100000"  # the last argument
KINDS = {"pid": "pid", "mnt": "mount", "uts": "uts", "ipc": "ipc"}
KEPT = {"CAP_KILL"}
DESCRIPTORS = "100"


def check(machine: Machine) -> None:
    require(os.path.isfile(machine.path(f"{BUNDLE}/config.json")), f"there is no {BUNDLE}/config.json")
    for name, words in RUNTIMES.items():
        if name == "minibox-oci" or os.path.exists("/usr/bin/crun"):
            try:
                _check_with(machine, name, words)
            except Missing as missing:
                raise Missing(f"run by {name}: {missing}") from None


def _check_with(machine: Machine, name: str, words: list[str]) -> None:
    assert machine.start
    known = {each.pid for each in machine.processes()}
    running = machine.start(["sh", "-c", IN_BUNDLE, "sh", *words], name)
    running.wait_ready()
    new = [each for each in machine.processes() if each.pid not in known]
    found = [each for each in new if is_command(each, COMMAND)]
    require(found, f"the command is another one; there are {named(new)}")
    process = found[0]
    try:
        _check_process(machine, process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        running.wait_ended()


def _check_process(machine: Machine, process: Process) -> None:
    for kind, word in KINDS.items():
        require(
            machine.is_apart(process, kind),
            f"{process} shares the machine's {kind} namespace: the type {word} is missing",
        )
    hostname = process.within().hostname
    require(hostname == "bundle", f"the host name is {hostname!r}, not 'bundle'")
    mounts = {each.point: each for each in process.mounts()}
    require("ro" in mounts["/"].options, "the root can be written: root.readonly is missing")
    for point, fs_type in (("/proc", "proc"), ("/tmp", "tmpfs")):
        require(point in mounts and mounts[point].fs_type == fs_type, f"there is no {fs_type} on {point}")
    shared = mounts.get("/shared")
    require(shared, "nothing is mounted on /shared")
    assert shared is not None
    require(shared.root.endswith("/srv/shared"), f"/shared is {shared.root}, not /srv/shared of the machine")
    require("ro" in shared.options, "/shared can be written: the option ro is missing")
    for kind, word in (("Bnd", "bounding"), ("Eff", "effective"), ("Prm", "permitted")):
        its = process.capabilities(kind)
        require(its == KEPT, f"the {word} capabilities are {', '.join(sorted(its)) or 'none'}, not CAP_KILL alone")
    require(process.fields["NoNewPrivs"] == "1", "noNewPrivileges is missing")
    limit = next(
        (line.split()[3:5] for line in process.read("limits").splitlines() if line.startswith("Max open files")), []
    )
    require(
        limit == [DESCRIPTORS] * 2,
        f"the limit of descriptors is {' and '.join(limit)}, not {DESCRIPTORS}: RLIMIT_NOFILE",
    )
