"""Make a cgroup: execute its steps, and say why one fails."""

from __future__ import annotations

import os
from errno import EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ERANGE

from minibox.errors import LimitError, MiniboxError, kernel_says, suppress
from minibox.linux.cgroup.cgroupfs import read_file, remove_directory, write_file
from minibox.linux.cgroup.group import Cgroup
from minibox.linux.cgroup.steps import (
    COPY,
    FILTER,
    MKDIR,
    PARENT_MKDIR,
    SCOPE,
    SUBTREE_CONTROL,
    WRITE,
    cgroup_steps,
    file_of,
    is_optional,
    limit_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from minibox.base.operation import Op
    from minibox.linux.cgroup.host import CgroupHost
    from minibox.linux.cgroup.systemd import Scope


def create(host: CgroupHost, name: str, resources: Mapping[str, Any], *, devices: bool = True) -> Cgroup:
    """Make the cgroup ``name`` with the limits of OCI ``linux.resources``, or nothing.

    If the host offers no cgroup, and you ask for no limit, the result has no directory, and its methods do nothing.

    Args: see `cgroup_steps`.

    Raises:
        LimitError: a limit can't be applied; says why, and what to do.
        MiniboxError: a cgroup of that name exists.
    """
    return make(host, name, cgroup_steps(host, name, resources, devices=devices))


def make(host: CgroupHost, name: str, steps: tuple[Op, ...]) -> Cgroup:
    """Execute the steps of `cgroup_steps`. If one fails, undo the others."""
    made: list[str] = []
    scope = None
    try:
        for step in steps:
            found = perform(step)
            scope = found or scope
            if step.name == MKDIR:
                made.append(str(step.args[0]))
    except BaseException:
        for path in reversed(made):
            remove_directory(path, 0.0)
        if scope:
            scope.close()
        raise
    group = planned(host, name, steps)
    return Cgroup(name, group.v1, group.v2, scope, host.joined)


def perform(step: Op) -> Scope | None:
    """Execute one step of making a cgroup; return the systemd scope that it made, if any.

    Raises:
        LimitError: a limit can't be applied; says why, and what to do.
        MiniboxError: a cgroup of that name exists.
    """
    act: Any = _ACTS[step.name]
    try:
        scope: Scope | None = act(*step.args)
    except OSError as error:
        if not is_optional(step):
            raise refusal(step, error) from error
        return None
    return scope


def settings(steps: Iterable[Op]) -> Iterator[tuple[str, str]]:
    """Yield the limits among ``steps``: the name of a file, and its value."""
    for step in steps:
        if step.name == WRITE and file_of(step) != SUBTREE_CONTROL:
            path, value, _, _, other_path, other_value = map(str, step.args)
            yield (other_path or path).rpartition("/")[2], other_value if other_path else value


def planned(host: CgroupHost, name: str, steps: Iterable[Op]) -> Cgroup:
    """Return the cgroup that ``steps`` make. Pure: it needn't exist yet."""
    parents = {str(step.args[0]).rpartition("/")[0] for step in steps if step.name == MKDIR}
    v1 = {controller: f"{parent}/{name}" for controller, parent in host.hierarchies.items() if parent in parents}
    return Cgroup(name, v1, f"{host.v2_parent}/{name}" if host.v2_parent in parents else "", joined=host.joined)


def _mkdir(path: str, _limit: str, shared: int) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        if not shared or read_file(f"{path}/cgroup.procs"):
            raise


def _parent(path: str) -> None:
    with suppress(FileExistsError):
        os.mkdir(path, 0o755)


def _write(path: str, value: str, _limit: str, _optional: int, other_path: str, other_value: str) -> None:
    if path.endswith(f"/{SUBTREE_CONTROL}"):
        _check_populated(path.rpartition("/")[0])
    write_file(*written(path, value, other_path, other_value))


def _copy(path: str, source: str, _limit: str, _optional: int) -> None:
    if not read_file(path).strip():
        write_file(path, read_file(source).strip())


def _filter(path: str, program: bytes) -> None:
    from minibox.linux.device_filter import attach

    attach(path, program)


def _scope(directory: str, unit: str, slice_name: str, told: tuple[str, ...]) -> Scope:
    """Make systemd create the scope, and tell it the limits that the steps set."""
    from minibox.linux.cgroup.scope import properties
    from minibox.linux.cgroup.systemd import Scope

    return Scope(directory, unit, slice_name, properties(pairs(told)))


def pairs(told: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Split limits for systemd, ``FILE=VALUE`` each, into the pairs for `scope.properties`."""
    for each in told:
        file, _, value = each.partition("=")
        yield file, value


_ACTS = {MKDIR: _mkdir, PARENT_MKDIR: _parent, WRITE: _write, COPY: _copy, FILTER: _filter, SCOPE: _scope}


def written(path: str, value: str, other_path: str, other_value: str) -> tuple[str, str]:
    """Return the file to write, the one of the two that this kernel has, and its value."""
    return (other_path, other_value) if other_path and not os.path.exists(path) else (path, value)


def _check_populated(parent: str) -> None:
    """Raise EBUSY for a cgroup that has processes, like the kernel does for memory.

    For threaded controllers (cpu, cpuset, pids) the kernel accepts the write, but then no process can enter a child
    of the
    cgroup: EOPNOTSUPP (cgroup-v2.rst, "Threads"). Only the root may have both.
    """
    if os.path.exists(f"{parent}/cgroup.type") and read_file(f"{parent}/cgroup.procs"):
        raise OSError(EBUSY, os.strerror(EBUSY), parent)


def refusal(step: Op, error: OSError) -> MiniboxError:
    """Turn the kernel's refusal into an error about the limit that was asked for."""
    path, file, limit = str(step.args[0]), file_of(step), limit_of(step)
    doing = step.name.removeprefix("cgroup_").replace("_", " ")
    what = f"{limit or 'cgroup'}: {doing} {path}: {kernel_says(error)}"
    if step.name == MKDIR and error.errno == EEXIST:
        return MiniboxError(f"make cgroup {path}: {kernel_says(error)}", "a container of that id exists already")
    if not limit:
        return MiniboxError(what, "see minibox doctor")
    if file == SUBTREE_CONTROL and error.errno == EBUSY:
        parent = path.rpartition("/")[0]
        return LimitError(
            what + ": the cgroup has processes of its own",
            f"a v2 cgroup has either processes or children with limits; move them: mkdir {parent}/init;"
            f" for p in $(cat {parent}/cgroup.procs); do echo $p > {parent}/init/cgroup.procs; done",
        )
    if file == "memory.memsw.limit_in_bytes" and error.errno == ENOENT:
        return LimitError(what, "boot with swapaccount=1, or leave out --memory-swap")
    if file == "memory.swap.max" and error.errno == ENOENT:
        return LimitError(what, "this kernel doesn't count swap (CONFIG_SWAP, swapaccount=1); leave out --memory-swap")
    if error.errno in (EINVAL, ERANGE, ENODEV) or file.startswith("cpuset."):
        value = str(step.args[1]) if step.name == WRITE else ""
        return LimitError(f"{what} (value {value})", _RANGES.get(file.partition(".")[0]))
    if error.errno == ENOENT:
        return LimitError(what, "this kernel doesn't support it; leave the option out")
    return LimitError(what, "see minibox doctor")


_RANGES = {
    "cpuset": "to list CPUs and memory nodes: cat /sys/devices/system/cpu/online /sys/devices/system/node/online",
    "cpu": "a CPU limit is at least 0.01 CPUs (1000 µs per period of 1000 to 1000000 µs)",
    "pids": "a process limit is 1 or more, or -1 for none",
    "io": "name a whole disk, not a partition: lsblk -d -o NAME,MAJ:MIN",
    "blkio": "name a whole disk, not a partition: lsblk -d -o NAME,MAJ:MIN",
}
