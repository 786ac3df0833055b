"""How a cgroup is made: the steps performed, or undone with an error that says why."""

from __future__ import annotations

import os
from errno import EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ERANGE

from minibox.errors import LimitError, MiniboxError, kernel_says
from minibox.linux.cgroup.group import Cgroup, read_file, remove_directory, write_file
from minibox.linux.cgroup.steps import CgroupStep, cgroup_steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from minibox.linux.cgroup.host import CgroupHost
    from minibox.linux.cgroup.systemd import Scope


def create(host: CgroupHost, name: str, resources: Mapping[str, Any], *, devices: bool = True) -> Cgroup:
    """Make the cgroup ``name`` with the limits of OCI ``linux.resources``, or nothing.

    On a host that offers no cgroup, and when no limit is asked for, the result has no directory and
    all its methods do nothing.

    Args: see `cgroup_steps`.

    Raises:
        LimitError: a limit can't be applied; says why, and what to do.
        MiniboxError: a cgroup of that name exists.
    """
    return make(host, name, cgroup_steps(host, name, resources, devices=devices), resources)


def make(
    host: CgroupHost, name: str, steps: tuple[CgroupStep, ...], resources: Mapping[str, Any], *, joins: bool = False
) -> Cgroup:
    """Perform the steps of `cgroup_steps`; what they made is undone when one fails.

    Args:
        joins: a cgroup that is there already will do, if it has no process.
    """
    made: list[str] = []
    scope = None
    try:
        for step in steps:
            try:
                if step.op == "scope":
                    scope = _scope(host, steps)
                else:
                    _perform(step, resources)
            except OSError as error:
                if step.op in ("mkdir", "parent") and error.errno == EEXIST:
                    if (
                        step.path in made
                        or step.op == "parent"
                        or (joins and not read_file(f"{step.path}/cgroup.procs"))
                    ):
                        continue  # the device rules' hierarchy, co-mounted with another; or made for us
                    raise refusal(step, error) from error
                if not step.optional:
                    raise refusal(step, error) from error
            else:
                if step.op == "mkdir":
                    made.append(step.path)
    except BaseException:
        for path in reversed(made):
            remove_directory(path, 0.0)
        if scope:
            scope.close()
        raise
    group = planned(host, name, steps)
    return Cgroup(name, group.v1, group.v2, scope, host.joined)


def _scope(host: CgroupHost, steps: tuple[CgroupStep, ...]) -> Scope:
    """Have systemd make the scope, and know of the limits that the steps set."""
    from minibox.linux.cgroup.scope import properties
    from minibox.linux.cgroup.systemd import Scope

    return Scope(host, properties(settings(steps)))


def settings(steps: Iterable[CgroupStep]) -> Iterator[tuple[str, str]]:
    """The limits among ``steps``: name of a file, and what is written to it."""
    for step in steps:
        path, value = step.other if step.other[0] else (step.path, step.value)
        file = path.rpartition("/")[2]
        if step.op == "write" and file != "cgroup.subtree_control":
            yield file, value


def planned(host: CgroupHost, name: str, steps: tuple[CgroupStep, ...]) -> Cgroup:
    """The cgroup that `make` makes of ``steps``. Pure: it needn't exist yet."""
    parents = {step.path.rpartition("/")[0] for step in steps if step.op == "mkdir"}
    v1 = {controller: f"{parent}/{name}" for controller, parent in host.hierarchies.items() if parent in parents}
    return Cgroup(name, v1, f"{host.v2_parent}/{name}" if host.v2_parent in parents else "")


def _perform(step: CgroupStep, resources: Mapping[str, Any]) -> None:
    if step.op in ("mkdir", "parent"):
        os.mkdir(step.path, 0o755)
    elif step.op == "write":
        if step.path.endswith("/cgroup.subtree_control"):
            _check_populated(step.path.rpartition("/")[0])
        write_file(*written(step))
    elif step.op == "copy":
        if not read_file(step.path).strip():
            write_file(step.path, read_file(step.value).strip())
    else:
        from minibox.linux.device_filter import attach

        attach(step.path, resources["devices"])


def written(step: CgroupStep) -> tuple[str, str]:
    """The file that a write goes to, of two the one that this kernel has, and the value."""
    return step.other if step.other[0] and not os.path.exists(step.path) else (step.path, step.value)


def _check_populated(parent: str) -> None:
    """Raise EBUSY for a cgroup that has processes, as the kernel does for memory.

    For threaded controllers (cpu, cpuset, pids) it takes the write, and from then on no child of the
    cgroup can be entered: EOPNOTSUPP (cgroup-v2.rst, "Threads"). The root alone may have both.
    """
    if os.path.exists(f"{parent}/cgroup.type") and read_file(f"{parent}/cgroup.procs"):
        raise OSError(EBUSY, os.strerror(EBUSY), parent)


def refusal(step: CgroupStep, error: OSError) -> MiniboxError:
    """The kernel's no, put into words for what was asked."""
    file = step.path.rpartition("/")[2]
    what = f"{step.limit or 'cgroup'}: {step.op.replace('_', ' ')} {step.path}: {kernel_says(error)}"
    if step.op == "mkdir" and error.errno == EEXIST:
        return MiniboxError(f"make cgroup {step.path}: {kernel_says(error)}", "a container of that id is there already")
    if not step.limit:
        return MiniboxError(what, "see minibox doctor")
    if file == "cgroup.subtree_control" and error.errno == EBUSY:
        parent = step.path.rpartition("/")[0]
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
        return LimitError(f"{what} (value {step.value})", _RANGES.get(file.partition(".")[0]))
    if error.errno == ENOENT:
        return LimitError(what, "this kernel is built without it; leave the option out")
    return LimitError(what, "see minibox doctor")


_RANGES = {
    "cpuset": "see the CPUs and memory nodes of this host: cat /sys/devices/system/cpu/online /sys/devices/system/node/online",
    "cpu": "a CPU limit is at least 0.01 CPUs (1000 µs a period, which is 1000 to 1000000 µs)",
    "pids": "a process limit is 1 or more, or -1 for none",
    "io": "name a whole disk, not a partition: lsblk -d -o NAME,MAJ:MIN",
    "blkio": "name a whole disk, not a partition: lsblk -d -o NAME,MAJ:MIN",
}
