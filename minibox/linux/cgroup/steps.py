"""How a cgroup is made, as data: what `create` does and `minibox explain` prints. Pure.

Which hierarchies a container gets, from costs measured on Linux 6.18 (a v1 hierarchy: mkdir 30 to
60 µs, enter 30, rmdir 50 to 70; v2: 45, 70, 55):

- v2, where there is one, always: it freezes, kills and counts CPU time without any controller.
- memory always: it tells an out-of-memory kill from any other, and a limit can be changed later.
- freezer and cpuacct on pure v1 only, where v2 can't stand in for them.
- any other only when one of its limits is asked for, or when the container can mount cgroups itself, and
  make some: in a hierarchy in which it has none of its own it would be in ours.
"""

from __future__ import annotations

from minibox.errors import LimitError
from minibox.linux.cgroup.group import check_name
from minibox.linux.cgroup.host import V2_MOUNT
from minibox.linux.cgroup.limits import CONTROLLERS, SWAP, Setting
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from minibox.linux.cgroup.host import CgroupHost


@record
class CgroupStep:
    """One step of making a cgroup.

    Attributes:
        op: "mkdir"; "write" ``value`` to the file ``path``; "copy" the file ``value`` to ``path``;
            "device_filter": attach the BPF program of the device rules to the cgroup ``path``; "scope":
            have systemd make the cgroup ``path``, with ``value``, options of systemd-run(1); or "parent": make
            the directory unless it is there, for this cgroup and for others, so that it stays.
        path: absolute path of a directory or file in cgroupfs.
        limit: the limit that was asked for and needs this; "" for housekeeping.
        optional: True when a failure loses nothing that was asked for.
        controller: the controller that it is for; "" for the v2 cgroup itself.
        other: of a write, the path and value where ``path`` doesn't exist; two empty strings where there is none.
    """

    op: str
    path: str
    value: str = ""
    limit: str = ""
    optional: bool = False
    controller: str = ""
    other: tuple[str, str] = ("", "")

    def shell(self) -> str:
        """The shell command that does the same (for a device filter there is none: a comment)."""
        from shlex import quote

        path, value = quote(self.path), quote(self.value)
        if self.op == "mkdir":
            return f"mkdir {path}"
        if self.op == "parent":
            return f"mkdir -p {path}"
        if self.op == "scope":
            # A pipe without an end, so that the scope has a process.
            return f"sleep infinity | systemd-run --scope {self.value} cat & mkdir -p {path}/holder"
        if self.op == "copy":
            return f"cat {value} > {path}"
        if self.op == "write":
            other = f" || echo {quote(self.other[1])} > {quote(self.other[0])}" if self.other[0] else ""
            return f"echo {value} > {path}{other}" + (" || true" if self.optional else "")
        return f"# bpf(BPF_PROG_ATTACH, {path}, BPF_CGROUP_DEVICE)"


def cgroup_steps(
    host: CgroupHost, name: str, resources: Mapping[str, Any], *, devices: bool = True, in_all: bool = False
) -> tuple[CgroupStep, ...]:
    """The steps that make the cgroup ``name`` with the limits of OCI ``linux.resources``.

    Args:
        host: from `detect`.
        name: "minibox-" and the container's id.
        resources: `linux.resources`; absent, None and empty values ask for nothing.
        devices: False leaves the device rules out: in a user namespace of its own a container can't
            make device nodes, so there is nothing to filter.
        in_all: in every hierarchy of v1, those without a controller too.

    Raises:
        LimitError: something was asked for that this host has no means for.
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
) -> tuple[CgroupStep, ...]:
    """As `cgroup_steps`, for a cgroup of any name.

    Args:
        everywhere: it is an OCI runtime's: in each hierarchy, with each controller, as those look for it who
            drive the runtime, and without Docker's rule of as much swap as memory.
    """
    v1: dict[str, list[tuple[str, Setting]]] = {}  # hierarchy directory -> (controller, setting)
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
    _refuse_unknown(resources)
    for file, value in (resources.get("unified") or {}).items():
        v2.append(_unified(host, file, value))
    rules = resources.get("devices") if devices else None
    steps = [*_v2_steps(host, name, v2, everywhere), *_v1_steps(host, name, v1, in_all or everywhere)]
    if rules:
        steps += _device_steps(host, name, rules)
    return tuple(steps)


def v2_controllers(resources: Mapping[str, Any]) -> set[str]:
    """The controllers of cgroup v2 that the limits of ``resources`` need."""
    needed = {name for key, _, _, name, settings in CONTROLLERS if resources.get(key) and settings(resources[key])}
    return needed | {file.partition(".")[0] for file in resources.get("unified") or ()} - {"cgroup"}


def _v2_steps(host: CgroupHost, name: str, settings: list[tuple[str, Setting]], everywhere: bool) -> list[CgroupStep]:
    parent = host.v2_parent
    if not parent:
        return []
    directory = f"{parent}/{name}"
    needed = {controller: setting.limit for controller, setting in settings if controller not in ("", "cgroup")}
    steps = [_scope_step(host, settings)] if host.scope and not everywhere else []
    steps += enable_steps(
        parent, host.v2_available if everywhere else ("memory", *needed), host.v2_available, host.v2_enabled, needed
    )
    steps.append(CgroupStep("mkdir", directory))
    steps += [_write_step(directory, controller, setting) for controller, setting in settings]
    return steps


def enable_steps(
    parent: str, wanted: Iterable[str], available: Iterable[str], enabled: Iterable[str], needed: Mapping[str, str]
) -> list[CgroupStep]:
    """Give those ``wanted`` of the ``available`` controllers to the children of a v2 cgroup.

    Args:
        enabled: those that they have.
        needed: controller -> the limit that needs it; any other may fail.
    """
    wanted, file = set(wanted) - set(enabled), f"{parent}/cgroup.subtree_control"
    return [
        CgroupStep("write", file, f"+{controller}", needed.get(controller, ""), controller not in needed, controller)
        for controller in available
        if controller in wanted
    ]


def _write_step(directory: str, controller: str, setting: Setting) -> CgroupStep:
    file, value = setting.other
    other = (f"{directory}/{file}", value) if file else ("", "")
    return CgroupStep(
        "write", f"{directory}/{setting.file}", setting.value, setting.limit, setting.optional, controller, other
    )


def _scope_step(host: CgroupHost, settings: list[tuple[str, Setting]]) -> CgroupStep:
    from minibox.linux.cgroup.scope import properties

    words = [f"--unit={host.scope}", f"--slice={host.slice}", "-p Delegate=yes"]
    named = (each.other if each.other[0] else (each.file, each.value) for _, each in settings)
    words += [f"-p {each.text}" for each in properties(named)]
    return CgroupStep("scope", host.v2_parent, " ".join(words))


def _v1_steps(
    host: CgroupHost, name: str, settings: dict[str, list[tuple[str, Setting]]], in_all: bool
) -> list[CgroupStep]:
    directories = dict.fromkeys(settings)
    always = ("memory",) if host.v2_parent else ("memory", "freezer", "cpuacct")
    hierarchies = host.hierarchies
    for controller in hierarchies if in_all else always:
        if controller in hierarchies:
            directories.setdefault(hierarchies[controller])
    steps = []
    for parent in directories:
        asked = settings.get(parent, [])
        directory = f"{parent}/{name}"
        controller = asked[0][0] if asked else next(c for c, path in hierarchies.items() if path == parent)
        limit = asked[0][1].limit if asked else ""
        steps.append(CgroupStep("mkdir", directory, "", limit, False, controller))
        if host.v1.get("cpuset") == parent:
            # A new v1 cpuset is empty, and write(2) to its tasks says ENOSPC until both files are filled.
            for file in ("cpuset.cpus", "cpuset.mems"):
                if all(setting.file != file for _, setting in asked):
                    steps.append(
                        CgroupStep("copy", f"{directory}/{file}", f"{parent}/{file}", limit, not asked, "cpuset")
                    )
        steps += [_write_step(directory, controller, setting) for controller, setting in asked]
    return steps


def _device_steps(host: CgroupHost, name: str, rules: list[dict[str, Any]]) -> list[CgroupStep]:
    from minibox.linux.device_filter import denies_something, rule_lines, with_defaults

    if not denies_something(rules):
        return []
    if "devices" in host.v1:
        directory = f"{host.v1['devices']}/{name}"
        steps = [CgroupStep("mkdir", directory, "", "device rules", False, "devices")]
        for file, line in rule_lines(with_defaults(rules)):
            steps.append(CgroupStep("write", f"{directory}/{file}", line, "device rules", False, "devices"))
        return steps
    if not host.v2_parent:
        raise _unavailable(host, "devices", "devices", "device rules")
    return [CgroupStep("device_filter", f"{host.v2_parent}/{name}", "", "device rules")]


def _unified(host: CgroupHost, file: str, value: str) -> tuple[str, Setting]:
    controller = file.partition(".")[0]
    if "/" in file or "." not in file or file in _NO_LIMITS:
        raise LimitError(f"unified {file!r}: not the name of a cgroup v2 limit", "for example: memory.high")
    if not host.v2_parent or (controller != "cgroup" and controller not in host.v2_available):
        raise _unavailable(host, "", controller, f"unified {file}")
    return controller, Setting(file, value, f"unified {file}")


_NO_LIMITS = ("cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.subtree_control", "cgroup.type")
#: Those that every distribution's kernel has, and systemd can give to a user.
DELEGATED = ("cpu", "cpuset", "io", "memory", "pids")
_KNOWN = (*(key for key, *_ in CONTROLLERS), "devices", "unified")


def _refuse_unknown(resources: Mapping[str, Any]) -> None:
    for key, value in resources.items():
        if value and key not in _KNOWN:
            raise LimitError(f"{key} limits: minibox can't set them", "leave them out of linux.resources")


def _unavailable(host: CgroupHost, v1_name: str, v2_name: str, limit: str) -> LimitError:
    """Say why the host can't do it: nothing mounted, not ours, not delegated, or no such controller."""
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
            f"as root: systemctl edit user@.service, and write: [Service] Delegate={' '.join(DELEGATED)}; then log in anew",
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
