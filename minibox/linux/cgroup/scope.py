"""A container's cgroup below a systemd scope, for hosts where systemd manages cgroups. Pure, except for `scope_host`.

On a host with systemd all cgroups belong to systemd, except those that it delegated (systemd's "Control Group APIs and
Delegation"). An ordinary user can get limits only from systemd, and if others write to the root's
cgroup.subtree_control, the next `systemctl daemon-reload` undoes it. So we ask systemd for a scope with
``Delegate=yes``, and pass the limits as properties, which `systemctl status` shows. Our cgroup is below the scope:

    minibox-ID.scope/             systemd's, with the properties
        holder                    a process of ours: a scope exists as long as it has a process
        minibox-ID                the container's cgroup, with all its limits

The holder stays until we have read and removed the container's cgroup, so that we don't miss an out-of-memory kill.
It ends with minibox, so if minibox is killed, systemd removes everything.
"""

from __future__ import annotations

from os import W_OK, access, getuid
from os.path import commonpath, exists, isdir

from minibox.base.directories import is_ours
from minibox.errors import ConfigError, LimitError
from minibox.linux.cgroup.host import V2_MOUNT, CgroupHost, controllers, current_v2
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

INFINITY = (1 << 64) - 1
HOLDER = "holder"
_HANDED_OUT = ("cpu", "cpuset", "io", "memory", "pids")  # the controllers that systemd 252 knows


@record
class Property:
    """A property of a unit: systemd.resource-control(5).

    Attributes:
        signature: its D-Bus type: "t", "b", "s", or "ay".
        text: name and value for `systemd-run -p`.
    """

    name: str
    signature: str
    value: int | str | bytes
    text: str


def scope_host(unit: str, slice_name: str = "", *, euid: int, environ: Mapping[str, str]) -> CgroupHost:
    """Return the scope ``unit`` as the place for a container's cgroup. It needn't exist yet.

    Args:
        unit: "minibox-ID.scope".
        slice_name: its slice; "" for machine.slice, or app.slice for an ordinary user.

    Raises:
        LimitError: we can't ask systemd here; says why and what to do.
    """
    why, hint = _unavailable(euid, environ)
    if why:
        raise LimitError(f"ask systemd for a cgroup: {why}", hint)
    base = manager_cgroup(euid)
    name = slice_name or default_slice(euid)
    parent = scope_directory(unit, name, euid=euid)
    available = tuple(each for each in controllers(f"{V2_MOUNT}{base}") if each in _HANDED_OUT)
    late = is_out_of_reach(parent, euid)
    return CgroupHost("v2", {}, (), parent, available, scope=unit, slice=name, joined=late)


def is_out_of_reach(directory: str, euid: int) -> bool:
    """Tell whether this user can't move or start a process there from our cgroup, so that systemd has to move it.

    That is so if the common ancestor of both belongs to somebody else (cgroup-v2.rst, "Delegation Containment").
    """
    common = commonpath((current_v2(), directory.removeprefix(V2_MOUNT)))
    return euid != 0 and not access(f"{V2_MOUNT}{common}/cgroup.procs", W_OK)


def default_slice(euid: int) -> str:
    """Return the default slice for a scope."""
    return "app.slice" if euid else "machine.slice"


def scope_directory(unit: str, slice_name: str = "", *, euid: int) -> str:
    """Return the cgroup directory of a scope, whether it exists or not."""
    return f"{V2_MOUNT}{manager_cgroup(euid)}/{slice_path(slice_name or default_slice(euid))}/{unit}"


def usable(euid: int, environ: Mapping[str, str]) -> bool:
    """Tell whether we can ask systemd for a scope."""
    return not _unavailable(euid, environ)[0]


def addresses(euid: int, environ: Mapping[str, str]) -> tuple[tuple[str, bool], ...]:
    """Return the manager's sockets, and whether each is a bus. The bus comes first, since users may see only that."""
    if not euid:
        return ("/run/dbus/system_bus_socket", True), ("/run/systemd/private", False)
    directory = runtime_directory(euid, environ)
    return (f"{directory}/bus", True), (f"{directory}/systemd/private", False)


def runtime_directory(euid: int, environ: Mapping[str, str]) -> str:
    """Return an ordinary user's runtime directory; XDG Base Directory Specification."""
    return environ.get("XDG_RUNTIME_DIR") or f"/run/user/{euid}"


def manager_cgroup(euid: int) -> str:
    """Return the cgroup below which a manager makes its units. A user's was delegated by the system's systemd."""
    return f"/user.slice/user-{euid}.slice/user@{euid}.service" if euid else ""


def slice_path(name: str) -> str:
    """Return the directory of a slice: a-b.slice is below a.slice; systemd.slice(5)."""
    words = name.removesuffix(".slice").split("-")
    if name == "-.slice":
        return ""
    return "/".join(f"{'-'.join(words[:count])}.slice" for count in range(1, len(words) + 1))


def _unavailable(euid: int, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return why we can't ask systemd, and what to do; two empty strings if we can."""
    if not isdir("/run/systemd/system"):
        return "systemd doesn't run on this host", "leave out --cgroup-manager systemd"
    if not exists(f"{V2_MOUNT}/cgroup.controllers"):
        return (
            "this host has cgroup v1",
            "boot with systemd.unified_cgroup_hierarchy=1, or use --cgroup-manager cgroupfs",
        )
    if euid != getuid():
        return "the effective user isn't the real one", "run it as one user"
    if not any(exists(path) for path, _ in addresses(euid, environ)) or not isdir(f"{V2_MOUNT}{manager_cgroup(euid)}"):
        return "systemd doesn't run for this user", f"as root: loginctl enable-linger {euid}; then log in again"
    if euid and not is_ours(directory := runtime_directory(euid, environ)):
        return f"{directory} isn't private to this user", "unset XDG_RUNTIME_DIR, or log in again"
    return "", ""


def own_scope(cgroups_path: str, container_id: str, *, euid: int, environ: Mapping[str, str]) -> CgroupHost:
    """Return the scope of a `linux.cgroupsPath` in runc's form, ``slice:prefix:name``, as a place for limits.

    Unlike in `scope_host`, the scope is itself the container's cgroup: we have no holder in it, and it ends with the
    container's last process. ``v2_parent`` is the slice's directory, and ``scope`` the name below it.

    Raises:
        ConfigError: the path has another form.
        LimitError: we can't ask systemd here; says why and what to do.
    """
    parts = cgroups_path.split(":") if cgroups_path else ["", "minibox", container_id]
    if len(parts) != 3 or not parts[2] or "/" in cgroups_path or (parts[0] and not parts[0].endswith(".slice")):
        raise ConfigError(f"linux.cgroupsPath {cgroups_path!r}: for systemd it has the form slice:prefix:name")
    why, hint = _unavailable(euid, environ)
    if why:
        raise LimitError(
            f"ask systemd for a cgroup: {why}", hint.replace("--cgroup-manager systemd", "--systemd-cgroup")
        )
    slice_name, prefix, name = parts
    slice_name = slice_name or ("user.slice" if euid else "system.slice")
    base = f"{V2_MOUNT}{manager_cgroup(euid)}"
    available = tuple(each for each in controllers(base) if each in _HANDED_OUT)
    parent = f"{base}/{slice_path(slice_name)}".rstrip("/")
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    return CgroupHost("v2", {}, (), parent, available, available, scope=unit, slice=slice_name, joined=True)


def properties(settings: Iterable[tuple[str, str]], others: int = 1) -> tuple[Property, ...]:
    """Return the limits that systemd has properties for. The others are only in our own cgroup.

    Args:
        settings: pairs of a cgroup v2 file's name and its value.
        others: how many processes the scope has besides the container's: its holder.
    """
    return tuple(found for file, value in settings for found in _properties(file, value, others))


_NUMBERS = {
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
    "io.weight": "IOWeight",
}
_LISTS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}


def _properties(file: str, value: str, others: int) -> list[Property]:
    if file in _NUMBERS and (value == "max" or value.isdigit()):
        number = INFINITY if value == "max" else int(value) + (others if file == "pids.max" else 0)
        return [Property(_NUMBERS[file], "t", number, f"{_NUMBERS[file]}={'infinity' if value == 'max' else number}")]
    if file in _LISTS:
        return [Property(_LISTS[file], "ay", _bits(value), f"{_LISTS[file]}={value}")]
    if file == "cpu.max" and value.startswith("max"):
        return [Property("CPUQuotaPerSecUSec", "t", INFINITY, "CPUQuota=")]
    if file == "cpu.max":
        quota, _, period = value.partition(" ")
        period_us = int(period or 100_000)
        share_us = int(quota) * 1_000_000 // period_us
        return [
            Property("CPUQuotaPerSecUSec", "t", share_us, f"CPUQuota={share_us / 10_000:g}%"),
            Property("CPUQuotaPeriodUSec", "t", period_us, f"CPUQuotaPeriodSec={period_us}us"),
        ]
    return []


def _bits(text: str) -> bytes:
    """Convert a list as in cpuset(7), ``0-3,7``, to a bit mask."""
    mask = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            mask |= 1 << number
    return mask.to_bytes((mask.bit_length() + 7) // 8 or 1, "little")
