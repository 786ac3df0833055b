"""Change the limits of a cgroup that has processes. Off the hot path.

All or nothing: if a step fails, earlier values are restored.
"""

from __future__ import annotations

import os
from errno import EBUSY, EINVAL
from time import monotonic

from minibox.errors import LimitError, MiniboxError, kernel_says, suppress
from minibox.linux.cgroup.creation import refusal, settings, written
from minibox.linux.cgroup.group import Cgroup
from minibox.linux.cgroup.steps import (
    COPY,
    MKDIR,
    SCOPE,
    SUBTREE_CONTROL,
    WRITE,
    controller_of,
    file_of,
    is_optional,
    limit_of,
    limit_steps,
    write,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from minibox.base.operation import Op
    from minibox.linux.cgroup.host import CgroupHost

MEMORY_V1, SWAP_V1 = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
UNLIMITED_V1 = 1 << 62  # without a limit, cgroup v1 shows a number slightly below 1 << 63
ATTACH_S = 5.0
DEFAULT_WEIGHTS = {"blkio.bfq.weight": "100", "blkio.weight": "500", "io.bfq.weight": "100", "io.weight": "100"}


def change(
    host: CgroupHost, group: Cgroup, resources: Mapping[str, Any], *, everywhere: bool = False, unit: str = ""
) -> Cgroup:
    """Apply the limits of OCI ``linux.resources`` to a running container. Others stay as they are.

    To remove a limit, pass -1 for memory, CPU or processes, an empty set for CPUs or memory nodes, and 0 for a memory
    reservation or a block I/O weight. On cgroup v1 the container also joins hierarchies in which it had no limit
    before.

    Args:
        host: the host that the group was made on.
        everywhere: as in `limit_steps`: the group belongs to an OCI runtime.
        unit: its systemd unit; "" for none.

    Returns:
        The cgroup with the directories that it has now.

    Raises:
        LimitError: a limit can't be applied; says why. Nothing has changed then.
        MiniboxError: systemd refuses.
    """
    if not group.directories:
        raise LimitError(
            "the container has no cgroup, and so no limits",
            "run it with a limit, or with --cgroup-manager systemd; see minibox doctor",
        )
    undo: list[tuple[str, str]] = []
    made: list[str] = []
    try:
        _apply_all(_steps(host, group, _completed(group, resources), everywhere), made, undo)
        for directory in made:
            _fill(directory, group)
    except BaseException as error:
        for path, value in reversed(undo):
            _try_write(path, value)
        for directory in reversed(made):
            _leave(directory)
        if isinstance(error, OSError):
            raise MiniboxError(f"cgroup {error.filename or group.name}: {kernel_says(error)}") from error
        raise
    if unit:
        _tell_systemd(host, group, resources, everywhere, unit)
    if everywhere:
        return group
    v1 = {controller: f"{parent}/{group.name}" for controller, parent in host.hierarchies.items()}
    return Cgroup(group.name, {key: path for key, path in v1.items() if os.path.isdir(path)}, group.v2)


def _tell_systemd(host: CgroupHost, group: Cgroup, resources: Mapping[str, Any], everywhere: bool, unit: str) -> None:
    """Set the limits of the systemd unit, too. Otherwise systemd would reset ours at its next reload."""
    from minibox.linux.cgroup.scope import properties
    from minibox.linux.cgroup.systemd import Manager

    told = list(settings(limit_steps(host, group.name, resources, devices=False, everywhere=everywhere)))
    if (resources.get("pids") or {}).get("limit") == -1:
        told.append(("pids.max", "max"))
    if found := properties(told, others=int(not everywhere)):  # an OCI runtime's scope has no holder
        with Manager() as manager:
            manager.set_properties(unit, found)


def _completed(group: Cgroup, resources: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the values that the requested ones depend on.

    v2 has quota and period in one file. Unlimited memory means unlimited swap, too. A limit of memory and swap needs
    the current limit of memory.
    """
    asked, cpu, memory = dict(resources), dict(resources.get("cpu") or {}), dict(resources.get("memory") or {})
    if cpu.get("period") and not cpu.get("quota") and "cpu" not in group.v1 and group.v2:
        quota = _read(f"{group.v2}/cpu.max").split()[0]
        asked["cpu"] = {**cpu, "quota": int(quota) if quota.isdigit() else -1}
    swap = f"{group.v1['memory']}/{SWAP_V1}" if "memory" in group.v1 else f"{group.v2}/memory.swap.max"
    if memory.get("limit") == -1 and not memory.get("swap") and os.path.exists(swap):
        asked["memory"] = {**memory, "swap": -1}
    limit = f"{group.v1['memory']}/{MEMORY_V1}" if "memory" in group.v1 else f"{group.v2}/memory.max"
    if (memory.get("swap") or 0) > 0 and not memory.get("limit") and os.path.exists(limit):
        there = _value(_read(limit))
        asked["memory"] = {**memory, "limit": int(there) if there < UNLIMITED_V1 else -1}
    return asked


def _apply_all(steps: list[Op], made: list[str], undo: list[tuple[str, str]]) -> None:
    """Apply all steps, and try refused CPU ones again: values such as quota and burst may only fit in another order."""
    refused = []
    for step in steps:
        try:
            _apply(step, made, undo)
        except LimitError:
            if controller_of(step) != "cpu":
                raise
            refused.append(step)
    for step in refused:
        _apply(step, made, undo)


def _steps(host: CgroupHost, group: Cgroup, resources: Mapping[str, Any], everywhere: bool) -> list[Op]:
    """Return the steps of a new cgroup, without those already done, in an order in which each write is allowed."""
    steps = list(limit_steps(host, group.name, resources, devices=False, everywhere=everywhere))
    steps = [each for each in steps if each.name != SCOPE and not (each.name == MKDIR and os.path.isdir(_path(each)))]
    made = {_path(each) for each in steps if each.name == MKDIR}
    steps = [each for each in steps if each.name != COPY or os.path.dirname(_path(each)) in made]
    steps += _lifted(group, resources)
    wanted = {file_of(each): each for each in steps if each.name == WRITE}
    memory, swap = wanted.get(MEMORY_V1), wanted.get(SWAP_V1)
    if memory and swap and os.path.exists(_path(memory)) and os.path.exists(_path(swap)):
        # Memory and swap together may never be less than memory: write the sum first to raise it, last to cut it.
        if _value(str(swap.args[1])) >= _value(_read(_path(swap))):
            at = steps.index(memory)
            steps.remove(swap)
            steps.insert(at, swap)
    return steps


def _lifted(group: Cgroup, resources: Mapping[str, Any]) -> list[Op]:
    """Return the steps that remove limits. A new cgroup needs none for these values, which are its defaults."""
    steps = []
    pids, cpuset, block = (group.v1.get(each, group.v2) for each in ("pids", "cpuset", "blkio"))
    if (resources.get("pids") or {}).get("limit") == -1 and os.path.exists(f"{pids}/pids.max"):
        steps.append(write(f"{pids}/pids.max", "max", "process limit"))
    for key, limit in (("cpus", "set of CPUs"), ("mems", "set of memory nodes")):
        file = f"cpuset.{key}"
        if (resources.get("cpu") or {}).get(key) == "" and os.path.exists(f"{cpuset}/{file}"):
            # A cpuset that has processes can't be emptied (ENOSPC), on v2 either.
            above = _read(f"{os.path.dirname(cpuset)}/{file if 'cpuset' in group.v1 else f'{file}.effective'}")
            steps.append(write(f"{cpuset}/{file}", above, limit))
    if (resources.get("blockIO") or {}).get("weight") == 0:
        steps += [
            write(f"{block}/{file}", weight, "block I/O weight")
            for file, weight in DEFAULT_WEIGHTS.items()
            if os.path.exists(f"{block}/{file}")
        ]
    soft = f"{group.v1.get('memory')}/memory.soft_limit_in_bytes"
    if (resources.get("memory") or {}).get("reservation") == 0 and os.path.exists(soft):
        steps.append(write(soft, "-1", "memory reservation"))
    return steps


def _apply(step: Op, made: list[str], undo: list[tuple[str, str]]) -> None:
    target = _path(step)
    try:
        if step.name == MKDIR:
            os.mkdir(target)
            made.append(target)
        elif step.name == COPY:
            _write(target, _read(str(step.args[1])))
        elif file_of(step) == SUBTREE_CONTROL:
            _write(target, str(step.args[1]))  # no need to undo it: it limits nothing
        elif os.path.exists(target) or not is_optional(step):
            _, value, _, _, other_path, other_value = map(str, step.args)
            path, value = written(target, value, other_path, other_value)
            before = _read(path)
            if file_of(step) == "memory.max":
                _make_room(target, value, limit_of(step))
            _write(path, value)
            undo.append((path, before))
    except OSError as error:
        if not is_optional(step):
            raise _refused(step, error) from error


def _make_room(path: str, value: str, limit: str) -> None:
    """Make the kernel reclaim memory before we lower memory.max: otherwise it may kill processes instead.

    Writing to memory.high reclaims and never kills (cgroup-v2.rst).
    """
    directory = os.path.dirname(path)
    if value == "max" or _value(_read(f"{directory}/memory.current")) <= int(value):
        return
    before = _read(f"{directory}/memory.high")
    _write(f"{directory}/memory.high", value)
    try:
        if (used := _value(_read(f"{directory}/memory.current"))) > int(value):
            raise LimitError(
                f"{limit} of {value} bytes: the container uses {used:.0f}, which can't be reclaimed",
                "choose a higher limit, or stop the container first",
            )
    finally:
        _write(f"{directory}/memory.high", before)


def _fill(directory: str, group: Cgroup) -> None:
    """Move all of the container's processes to a new hierarchy, also those that are forked meanwhile."""
    deadline = monotonic() + ATTACH_S
    while missing := group.pids() - set(map(int, _read(f"{directory}/cgroup.procs").split())):
        for pid in missing:
            try:
                _write(f"{directory}/cgroup.procs", str(pid))
            except ProcessLookupError:
                continue
        if monotonic() > deadline:
            raise MiniboxError(f"move the container's processes to {directory}: it forks faster than we can move them")


def _leave(directory: str) -> None:
    """Remove a directory that is not needed after all, and move its processes back to the one above."""
    for pid in _read(f"{directory}/cgroup.procs").split():
        _try_write(f"{os.path.dirname(directory)}/cgroup.procs", pid)
    with suppress(OSError):  # it will be removed with the container
        os.rmdir(directory)


def _refused(step: Op, error: OSError) -> MiniboxError:
    file = file_of(step)
    if error.errno in (EBUSY, EINVAL) and file in (MEMORY_V1, SWAP_V1):
        used = _read(f"{os.path.dirname(_path(step))}/{file.replace('limit', 'usage')}")
        return LimitError(
            f"{limit_of(step)} of {step.args[1]!s} bytes: {kernel_says(error)}: the container uses {used}",
            "choose a higher limit, or stop the container first",
        )
    return refusal(step, error)


def _path(step: Op) -> str:
    return str(step.args[0])


def _value(text: str) -> float:
    """Parse a number of bytes; "max" and -1 are infinite."""
    return float(text) if text.isdigit() else float("inf")


def _read(path: str) -> str:
    with open(path, "rb", 0) as file:
        return file.read().decode().strip()


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode() or b"\n")
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def _try_write(path: str, value: str) -> None:
    with suppress(OSError):
        _write(path, value)
