"""The steps that make a cgroup, as operations of a Plan. Pure; `creation` executes them.

Which hierarchies a container gets depends on their costs, measured on Linux 6.18 (a v1 hierarchy: mkdir 30 to 60 µs,
enter 30, rmdir 50 to 70; v2: 45, 70, 55):

- v2 always, if there is one: it freezes, kills and counts CPU time without any controller.
- memory always: it tells an out-of-memory kill from any other, and lets us change a limit later.
- freezer and cpuacct only on pure v1, where v2 can't replace them.
- any other only if you set one of its limits, or if the container can mount cgroups and make its own: in a hierarchy
  without a cgroup of its own it would be in ours.
"""

from __future__ import annotations

from minibox.base.operation import parent
from minibox.errors import LimitError
from minibox.linux.cgroup.group import check_name
from minibox.linux.cgroup.host import V2_MOUNT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from minibox.base.operation import Op
    from minibox.linux.cgroup.host import CgroupHost
    from minibox.linux.cgroup.limits import Setting

    #: Settings with their controllers: those of v1 by the directory of their hierarchy, and those of v2.
    Settings = tuple[dict[str, list[tuple[str, Setting]]], list[tuple[str, Setting]]]


# Operations of the parent; `minibox.plan.parent` says what each does, and how to undo it.
MKDIR, PARENT_MKDIR, WRITE, COPY, FILTER, SCOPE = (
    "cgroup_mkdir", "cgroup_parent", "cgroup_write", "cgroup_copy", "device_filter", "systemd_scope",
)  # fmt: skip
SUBTREE_CONTROL = "cgroup.subtree_control"


def mkdir(path: str, limit: str = "", *, shared: bool = False) -> Op:
    """Make the cgroup ``path``.

    Args:
        limit: the limit that needs this; "" for housekeeping. All functions below have this argument.
        shared: use an existing one, if it has no process.
    """
    why = f"the {limit}, which is in this hierarchy" if limit else "a group for the limits, before its first member"
    return parent(MKDIR, path, limit, int(shared), why=why)


def parent_mkdir(path: str) -> Op:
    """Make a cgroup above another unless it exists. Others may use it, too, so it stays."""
    return parent(PARENT_MKDIR, path, why="the parent of the cgroup; others may use it, too, so it stays")


def write(
    path: str, value: str, limit: str = "", optional: bool = False, other_path: str = "", other_value: str = ""
) -> Op:
    """Write ``value`` to a file.

    Args:
        optional: it may fail, because nobody asked for it explicitly.
        other_path, other_value: a file to write instead if ``path`` doesn't exist; two empty strings for none.
    """
    if path.endswith(f"/{SUBTREE_CONTROL}"):
        why = f"so that cgroups below can use it, for the {limit}" if limit else "so that cgroups below can use it"
    else:
        why = f"the {limit}" if limit else "every container has this"
    return parent(WRITE, path, value, limit, int(optional), other_path, other_value, why=why)


def copy(path: str, source: str, limit: str = "", optional: bool = False) -> Op:
    """Copy the content of the file ``source`` to ``path`` if that is empty."""
    return parent(COPY, path, source, limit, int(optional), why="while this is empty, no process can enter")


def file_of(step: Op) -> str:
    """Return the name of the file that a step writes, or of the directory that it makes."""
    return str(step.args[0]).rpartition("/")[2]


def limit_of(step: Op) -> str:
    """Return the limit that needs a step; "" for none."""
    at = {MKDIR: 1, WRITE: 2, COPY: 2}.get(step.name)
    return "device rules" if step.name == FILTER else str(step.args[at]) if at else ""


def is_optional(step: Op) -> bool:
    """Tell whether a step may fail, because nobody asked for it explicitly."""
    return step.name in (WRITE, COPY) and bool(step.args[3])


def controller_of(step: Op) -> str:
    """Return the v2 controller that a write is for."""
    file = file_of(step)
    return str(step.args[1]).lstrip("+") if file == SUBTREE_CONTROL else file.partition(".")[0]


def cgroup_steps(
    host: CgroupHost, name: str, resources: Mapping[str, Any], *, devices: bool = True, in_all: bool = False
) -> tuple[Op, ...]:
    """Return the steps that make the cgroup ``name`` with the limits of OCI ``linux.resources``.

    Args:
        host: from `detect`.
        name: "minibox-" and the container's id.
        resources: `linux.resources`; absent, None and empty values mean no limit.
        devices: False to leave out the device rules: in its own user namespace a container can't make device nodes, so
            there is nothing to filter.
        in_all: make it in every v1 hierarchy, also in those without a controller.

    Raises:
        LimitError: this host can't apply one of the limits.
    """
    check_name(name)
    return limit_steps(host, name, resources, devices=devices, everywhere=False, in_all=in_all)


def limit_steps(
    host: CgroupHost,
    name: str,
    resources: Mapping[str, Any],
    *,
    devices: bool,
    everywhere: bool,
    in_all: bool = False,
) -> tuple[Op, ...]:
    """Like `cgroup_steps`, for a cgroup of any name.

    Args:
        everywhere: for an OCI runtime: in each hierarchy and with each controller, because the engine above expects it
            there, and without Docker's rule of as much swap as memory.
    """
    asked = {key: value for key, value in resources.items() if value and key != "devices"}
    v1, v2 = _settings(host, asked, everywhere) if asked else ({}, [])
    rules = resources.get("devices") if devices else None
    steps = [*_v2_steps(host, name, v2, everywhere), *_v1_steps(host, name, v1, in_all or everywhere, everywhere)]
    made = {step.args[0] for step in steps if step.name == MKDIR}
    for step in _device_steps(host, name, rules, everywhere) if rules else ():
        if step.name != MKDIR or step.args[0] not in made:  # their hierarchy may be co-mounted with another
            steps.append(step)
    return tuple(steps)


def _settings(host: CgroupHost, resources: Mapping[str, Any], everywhere: bool) -> Settings:
    """Return the settings for the limits that are asked for."""
    from minibox.linux.cgroup.limits import CONTROLLERS, SWAP

    v1: dict[str, list[tuple[str, Setting]]] = {}
    v2: list[tuple[str, Setting]] = []
    for key, v1_name, v1_compile, v2_name, v2_compile in CONTROLLERS:
        asked = resources.get(key)
        if not asked:
            continue
        settings = (v1_compile if v1_name in host.v1 else v2_compile)(asked)
        if everywhere:
            settings = [each for each in settings if not (each.optional and each.limit == SWAP)]
        if v1_name in host.v1:
            if settings:
                v1.setdefault(host.v1[v1_name], []).extend((v1_name, setting) for setting in settings)
        else:
            if settings and v2_name not in host.v2_available:
                raise _unavailable(host, v1_name, v2_name, settings[0].limit)
            v2.extend((v2_name, setting) for setting in settings)
    known = (*(key for key, *_ in CONTROLLERS), "unified")
    for key in resources:
        if key not in known:
            raise LimitError(f"{key} limits: minibox can't set them", "leave them out of linux.resources")
    for file, value in (resources.get("unified") or {}).items():
        v2.append(_unified(host, file, value))
    return v1, v2


def v2_controllers(resources: Mapping[str, Any]) -> set[str]:
    """Return the v2 controllers that the limits of ``resources`` need."""
    from minibox.linux.cgroup.limits import CONTROLLERS

    needed = {name for key, _, _, name, settings in CONTROLLERS if resources.get(key) and settings(resources[key])}
    return needed | {file.partition(".")[0] for file in resources.get("unified") or ()} - {"cgroup"}


def _v2_steps(host: CgroupHost, name: str, settings: list[tuple[str, Setting]], everywhere: bool) -> list[Op]:
    parent = host.v2_parent
    if not parent:
        return []
    directory = f"{parent}/{name}"
    needed = {controller: setting.limit for controller, setting in settings if controller not in ("", "cgroup")}
    steps = [_scope_step(host, settings)] if host.scope and not everywhere else []
    steps += enable_steps(
        parent, host.v2_available if everywhere else ("memory", *needed), host.v2_available, host.v2_enabled, needed
    )
    steps.append(mkdir(directory, shared=everywhere))
    steps += [_write_step(directory, setting) for _, setting in settings]
    return steps


def enable_steps(
    parent: str, wanted: Iterable[str], available: Iterable[str], enabled: Iterable[str], needed: Mapping[str, str]
) -> list[Op]:
    """Return the steps that give the ``wanted`` controllers, if ``available``, to the children of a v2 cgroup.

    Args:
        enabled: the controllers that they have already.
        needed: controller -> the limit that needs it; any other may fail.
    """
    wanted, file = set(wanted) - set(enabled), f"{parent}/{SUBTREE_CONTROL}"
    return [
        write(file, f"+{controller}", needed.get(controller, ""), controller not in needed)
        for controller in available
        if controller in wanted
    ]


def _write_step(directory: str, setting: Setting) -> Op:
    file, value = setting.other
    other = f"{directory}/{file}" if file else ""
    return write(f"{directory}/{setting.file}", setting.value, setting.limit, setting.optional, other, value)


def _scope_step(host: CgroupHost, settings: list[tuple[str, Setting]]) -> Op:
    named = (each.other if each.other[0] else (each.file, each.value) for _, each in settings)
    told = tuple(f"{file}={value}" for file, value in named)
    return parent(SCOPE, host.v2_parent, host.scope, host.slice, told, why="on this host systemd manages the cgroups")


def _v1_steps(
    host: CgroupHost, name: str, settings: dict[str, list[tuple[str, Setting]]], in_all: bool, shared: bool
) -> list[Op]:
    directories = dict.fromkeys(settings)
    always = ("memory",) if host.v2_parent else ("memory", "freezer", "cpuacct")
    hierarchies = host.hierarchies
    for controller in hierarchies if in_all else always:
        if controller in hierarchies:
            directories.setdefault(hierarchies[controller])
    steps = []
    for above in directories:
        asked = settings.get(above, [])
        directory = f"{above}/{name}"
        limit = asked[0][1].limit if asked else ""
        steps.append(mkdir(directory, limit, shared=shared))
        if host.v1.get("cpuset") == above:
            # A new v1 cpuset is empty, and write(2) to its tasks says ENOSPC until both files are filled.
            for file in ("cpuset.cpus", "cpuset.mems"):
                if all(setting.file != file for _, setting in asked):
                    steps.append(copy(f"{directory}/{file}", f"{above}/{file}", limit, not asked))
        steps += [_write_step(directory, setting) for _, setting in asked]
    return steps


def _device_steps(host: CgroupHost, name: str, rules: list[dict[str, Any]], shared: bool) -> list[Op]:
    from minibox.linux.device_filter import compile_rules, denies_something, rule_lines, with_defaults

    if not denies_something(rules):
        return []
    if "devices" in host.v1:
        directory = f"{host.v1['devices']}/{name}"
        steps = [mkdir(directory, "device rules", shared=shared)]
        steps += [write(f"{directory}/{file}", line, "device rules") for file, line in rule_lines(with_defaults(rules))]
        return steps
    if not host.v2_parent:
        raise _unavailable(host, "devices", "devices", "device rules")
    program = compile_rules(with_defaults(rules))
    return [parent(FILTER, f"{host.v2_parent}/{name}", program, why="the device rules, which are a program on v2")]


def _unified(host: CgroupHost, file: str, value: str) -> tuple[str, Setting]:
    from minibox.linux.cgroup.limits import Setting

    controller = file.partition(".")[0]
    if "/" in file or "." not in file or file in _NO_LIMITS:
        raise LimitError(f"unified {file!r}: not the name of a cgroup v2 limit", "for example: memory.high")
    if not host.v2_parent or (controller != "cgroup" and controller not in host.v2_available):
        raise _unavailable(host, "", controller, f"unified {file}")
    return controller, Setting(file, value, f"unified {file}")


_NO_LIMITS = ("cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.subtree_control", "cgroup.type")
#: Those that every distribution's kernel has, and systemd can give to a user.
DELEGATED = ("cpu", "cpuset", "io", "memory", "pids")


def _unavailable(host: CgroupHost, v1_name: str, v2_name: str, limit: str) -> LimitError:
    """Return the error that says why the host can't do it: not mounted, not ours, not delegated, or no controller."""
    if host.mode == "none":
        return LimitError(f"{limit}: no cgroup hierarchy is mounted", "mount -t cgroup2 cgroup2 /sys/fs/cgroup")
    if v1_name in host.v1_denied:
        return LimitError(
            f"{limit}: the {v1_name} controller is on cgroup v1, which only root may write",
            "run minibox as root, or boot with systemd.unified_cgroup_hierarchy=1 (cgroup v2)",
        )
    if host.v2_denied:
        return LimitError(
            f"{limit}: no cgroup is delegated to this user (ours is {host.v2_denied})",
            "log in so that systemd runs for this user too, or as root: loginctl enable-linger USER",
        )
    if not host.v2_parent:
        return LimitError(
            f"{limit}: the {v1_name or v2_name} controller is not mounted, and there is no cgroup v2",
            f"check /proc/cgroups, then: mount -t cgroup -o {v1_name or v2_name} cgroup DIRECTORY",
        )
    if host.mode == "v2" and host.v2_parent != V2_MOUNT and not host.nested and v2_name in DELEGATED:
        return LimitError(
            f"{limit}: the {v2_name} controller is not delegated to {host.v2_parent}",
            f"as root: systemctl edit user@.service, and write: [Service] Delegate={' '.join(DELEGATED)}; then log in again",
        )
    if host.mode == "hybrid" and not v1_name:
        return LimitError(f"{limit}: the {v2_name} controller is not on cgroup v2 here", "boot with cgroup v2 alone")
    if host.nested:
        return LimitError(
            f"{limit}: the cgroup that this container is in has no {v2_name} controller for others",
            "give it one from outside, as with --privileged, or set the limit there",
        )
    return LimitError(
        f"{limit}: this kernel offers no {v2_name} controller in {host.v2_parent}",
        "check /proc/cgroups and the kernel's command line (cgroup_disable=, cgroup_enable=)",
    )
