"""Lab 8: limits, a process killed at one, and where it is told."""

from __future__ import annotations

import os

from minibox.lab.cgroups import directories, read
from minibox.lab.look import Machine, named
from minibox.lab.requirement import require

SMALL_BYTES, KILLED_BYTES, PROCESSES, CPU_SHARE = 32 << 20, 16 << 20, 10, 0.2
NONE = 1 << 62  # v1 shows nearly 2^63 for "no limit"


def check(machine: Machine) -> None:
    above = directories(machine.init)
    small = {controller: f"{path}/small" for controller, path in above.items()}
    for controller, path in small.items():
        require(os.path.isdir(path), f"there is no group `small` for {controller}")
    _check_memory(small["memory"], "small", SMALL_BYTES)
    limit = read(small["pids"], "pids.max")
    require(limit == str(PROCESSES), f"`small` may have {limit} processes, not {PROCESSES}")
    share = _cpu_share(small["cpu"])
    require(share == CPU_SHARE, f"`small` may have {share or 'any number of'} processors, not {CPU_SHARE}")
    living = {each.pid: each for each in machine.processes() if each.state != "Z"}
    for controller, path in small.items():
        inside = {*map(int, read(path, "cgroup.procs").split())} & living.keys()
        require(inside, f"no process is in `small` of the controller {controller}")
    killed = f"{above['memory']}/killed"
    require(os.path.isdir(killed), "there is no group `killed` for memory")
    _check_memory(killed, "killed", KILLED_BYTES)
    count = _kills(killed)
    require(count, "the kernel has killed nobody in `killed`: did the process enter before it filled memory?")
    require(not read(killed, "cgroup.procs"), "somebody still lives in `killed`")
    names = [each for each in living.values() if each.name.startswith("oom-")]
    require(names, f"no process is called oom-N in its /proc/PID/comm; there are {named(living.values())}")
    wrong = [each.name for each in names if each.name != f"oom-{count}"]
    require(not wrong, f"{', '.join(wrong)} is wrong: the kernel has killed {count}")


def _check_memory(directory: str, name: str, wanted: int) -> None:
    text = read(directory, "memory.max") or read(directory, "memory.limit_in_bytes")
    limit = int(text) if text.isdigit() and int(text) < NONE else None
    require(
        limit == wanted,
        f"`{name}` may have {'any amount' if limit is None else f'{limit} bytes'} of memory, not {wanted}",
    )


def _cpu_share(directory: str) -> float | None:
    words = read(directory, "cpu.max").split() or [
        read(directory, "cpu.cfs_quota_us"),
        read(directory, "cpu.cfs_period_us"),
    ]
    return int(words[0]) / int(words[1]) if words[0].isdigit() else None


def _kills(directory: str) -> int:
    text = read(directory, "memory.events") or read(directory, "memory.oom_control")
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)
