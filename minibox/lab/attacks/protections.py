"""The protections of a container, and how a start looks that leaves one out. Everything else stays as it was."""

from __future__ import annotations

import os

from minibox.errors import UsageError
from minibox.linux.capabilities import NAMES
from minibox.plan import operations as op
from minibox.plan.compiler import compile_plan
from minibox.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from minibox.engine.spec.compile import CompiledRun
    from minibox.engine.spec.options import RunOptions
    from minibox.oci.runtime import Spec
    from minibox.plan.operations import Op
    from minibox.plan.start import Start

CGROUPS = "/sys/fs/cgroup"
DEVICE_FILES = ("devices.allow", "devices.deny")


@record
class Protection:
    """One line of defence.

    Attributes:
        name: as in ``--without NAME``.
        does: what it does, in words.
        steps: the names of the plan's operations that make it; for people who name the step.
        options, spec, start, ops: what leaves it out, each where that is easiest to say: changed options of the run; a
            change of the Spec in place; a changed `Start`; changed operations.
        there: does this start have it?
        by_root: only root can start a container without it.
    """

    name: str
    does: str
    there: Callable[[CompiledRun], bool]
    steps: tuple[str, ...] = ()
    options: Callable[[RunOptions], RunOptions] = lambda options: options
    spec: Callable[[Any], None] = lambda spec: None
    start: Callable[[Start], Start] = lambda start: start
    ops: Callable[[Iterable[Op]], Iterable[Op]] = lambda ops: ops
    by_root: bool = False


def _has_step(*names: str) -> Callable[[CompiledRun], bool]:
    return lambda compiled: any(step.name in names for step in compiled.plan.ops)


def _has_namespace(kind: str) -> Callable[[CompiledRun], bool]:
    return lambda compiled: any(each["type"] == kind for each in compiled.spec["linux"]["namespaces"])


def _without_namespace(kind: str) -> Callable[[Spec], None]:
    def change(spec: Spec) -> None:
        linux = spec["linux"]
        linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != kind]

    return change


def _set_linux(name: str, value: object) -> Callable[[Any], None]:
    def change(spec: Any) -> None:
        spec["linux"][name] = value

    return change


def _all_capabilities(spec: Any) -> None:
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        known = list(NAMES[: int(file.read()) + 1])
    spec["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), known)


def _new_privileges(spec: Any) -> None:
    spec["process"]["noNewPrivileges"] = False


def _hosts_name(spec: Any) -> None:
    _without_namespace("uts")(spec)
    spec["hostname"] = ""  # else the host would be renamed


def _hosts_messages(spec: Any) -> None:
    _without_namespace("ipc")(spec)
    spec["mounts"] = [mount for mount in spec["mounts"] if mount.get("type") != "mqueue"]


def _hosts_processes(spec: Any) -> None:
    _without_namespace("pid")(spec)
    _bind(spec, "/proc", "proc")


def _hosts_cgroups(spec: Any) -> None:
    _without_namespace("cgroup")(spec)
    _bind(spec, CGROUPS, "cgroup")


def _bind(spec: Any, path: str, fstype: str) -> None:
    """Show the host's instance of a file system: one of its own would need the namespace."""
    for mount in spec["mounts"]:
        if mount.get("type") == fstype:
            read_only = ["rro"] if "ro" in mount["options"] else []
            options = ["rbind", "nosuid", "noexec", "nodev", *read_only]
            mount.update({"destination": path, "type": "bind", "source": path, "options": options})


def _writable_sys(spec: Any) -> None:
    for mount in spec["mounts"]:
        if f"{mount['destination']}/".startswith("/sys/"):
            mount["options"] = [each for each in mount.get("options", ()) if each not in ("ro", "rro")]


def _is_device_rule(step: Op) -> bool:
    return step.name == "device_filter" or (
        step.name == "cgroup_write" and os.path.basename(str(step.args[0])) in DEVICE_FILES
    )


def _chroot(ops: Iterable[Op]) -> Iterable[Op]:
    changed = op.chroot("instead of pivot_root: the host's file system stays, above this directory")
    return [changed if step.name == "pivot_root" else step for step in ops]


PROTECTIONS = (
    Protection(
        "seccomp",
        "a filter allows only some system calls",
        _has_step("seccomp"),
        ("seccomp",),
        start=lambda start: replace(start, seccomp=b"", denies_keys=False),
    ),
    Protection(
        "masked-paths",
        "files of /proc and /sys that tell about the host are covered",
        _has_step("mask"),
        ("mask",),
        spec=_set_linux("maskedPaths", []),
    ),
    Protection(
        "readonly-paths",
        "settings of the kernel in /proc are read-only",
        _has_step("read_only"),
        ("read_only",),
        spec=_set_linux("readonlyPaths", []),
    ),
    Protection(
        "readonly-sys",
        "/sys and the cgroups in it are mounted read-only",
        lambda compiled: any("ro" in mount.get("options", ()) for mount in compiled.spec["mounts"]),
        ("attributes_at",),
        spec=_writable_sys,
    ),
    Protection(
        "no-new-privileges",
        "set-user-ID bits give no privileges",
        _has_step("no_new_privs"),
        ("no_new_privs",),
        spec=_new_privileges,
    ),
    Protection(
        "capabilities",
        "root inside has only some of root's privileges",
        _has_step("capset"),
        ("capset", "cap_bounding"),
        spec=_all_capabilities,
    ),
    Protection(
        "user-namespace",
        "root inside is nobody outside",
        _has_namespace("user"),
        ("write_uid_map", "write_gid_map"),
        options=lambda options: replace(options, userns="host"),
        by_root=True,
    ),
    Protection(
        "pivot-root",
        "the host's file system is unmounted, not only out of sight: without it, chroot",
        _has_step("pivot_root"),
        ("pivot_root",),
        ops=_chroot,
    ),
    Protection(
        "device-rules",
        "the cgroup allows only some devices to be made or opened",
        lambda compiled: any(map(_is_device_rule, compiled.plan.ops)),
        ("device_filter",),
        start=lambda start: replace(
            start, cgroup_steps=tuple(step for step in start.cgroup_steps if not _is_device_rule(step))
        ),
    ),
    Protection(
        "pids-limit",
        "the number of processes has a limit (--pids-limit)",
        lambda compiled: "pids" in compiled.spec["linux"].get("resources", {}),
        options=lambda options: replace(options, pids_limit=None),
    ),
    Protection(
        "memory-limit",
        "memory has a limit (--memory)",
        lambda compiled: "memory" in compiled.spec["linux"].get("resources", {}),
        options=lambda options: replace(options, memory_bytes=None, memory_swap_bytes=None),
    ),
    Protection(
        "network-namespace",
        "a network of its own",
        _has_namespace("network"),
        ("loopback_up",),
        options=lambda options: replace(options, network="host", hostname=options.hostname or "attacker"),
    ),
    Protection("ipc-namespace", "shared memory and semaphores of its own", _has_namespace("ipc"), spec=_hosts_messages),
    Protection("pid-namespace", "it sees only its own processes", _has_namespace("pid"), spec=_hosts_processes),
    Protection(
        "uts-namespace", "a host name of its own", _has_namespace("uts"), ("sethostname",), spec=_hosts_name
    ),
    Protection(
        "cgroup-namespace", "it sees only its own cgroup", _has_namespace("cgroup"), spec=_hosts_cgroups
    ),
    Protection(
        "session-keyring",
        "a session keyring of its own, without the caller's keys",
        _has_step("session_keyring"),
        ("session_keyring",),
        start=lambda start: replace(start, keyring=False),
    ),
)  # fmt: skip
BY_NAME = {each.name: each for each in PROTECTIONS}


def find(word: str) -> Protection:
    """Return the protection of that name, or the one that a step of the plan belongs to.

    Raises:
        UsageError: there is none; names those there are, and the nearest.
    """
    name = word.lower().replace("_", "-")
    found = BY_NAME.get(name) or next((each for each in PROTECTIONS if name.replace("-", "_") in each.steps), None)
    if found:
        return found
    from difflib import get_close_matches

    near = get_close_matches(name, BY_NAME, 1, 0.5)
    known = f"one of {', '.join(BY_NAME)}, or all"
    raise UsageError(f"no protection is called {word!r}", f"did you mean {near[0]}? {known}" if near else known)


def of_caller() -> list[Protection]:
    """Return the protections that this user can leave out."""
    return [each for each in PROTECTIONS if not (each.by_root and os.geteuid())]


def options_without(left_out: Iterable[Protection], options: RunOptions) -> RunOptions:
    """Return the options of a run, changed for the protections that options can leave out."""
    for each in left_out:
        options = each.options(options)
    return options


def compiled_without(left_out: Sequence[Protection], compiled: CompiledRun) -> CompiledRun:
    """Return a compiled run without some protections; `options_without` has changed its options."""
    spec, start = compiled.spec, compiled.start
    for each in left_out:
        each.spec(spec)
        start = each.start(start)
    plan = compile_plan(spec, compiled.rootfs, start)
    ops: Iterable[Op] = plan.ops
    for each in left_out:
        ops = each.ops(ops)
    return replace(compiled, spec=spec, start=start, plan=replace(plan, ops=tuple(ops)))
