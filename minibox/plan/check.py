"""Refuse an invalid Spec before anything is made, rather than ignore a part of it or fail half-way."""

from __future__ import annotations

from os import fsencode

from minibox.errors import ConfigError
from minibox.plan import namespaces
from minibox.plan.devices import DEVICE_TYPES
from minibox.plan.mounts import PROPAGATION
from minibox.plan.process import RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.oci.runtime import Linux, Process, Spec

# The prefix of a setting, and the namespace that it belongs to (namespaces(7)).
SYSCTLS = {
    "net.": "network",
    "fs.mqueue.": "ipc",
    "kernel.domainname.": "uts",
    **dict.fromkeys(
        ("kernel.msgmax.", "kernel.msgmnb.", "kernel.msgmni.", "kernel.sem.", "kernel.shmall.", "kernel.shmmax.",
         "kernel.shmmni.", "kernel.shm_rmid_forced."), "ipc"
    ),
}  # fmt: skip


def check(spec: Spec) -> None:
    """Raise ConfigError if the Spec is invalid."""
    if "process" not in spec:
        raise ConfigError("process is missing")
    check_process(spec["process"])
    _check_namespaces(spec)
    _check_id_maps(spec)
    _check_hooks(spec)
    _check_sysctl(spec)
    _check_net_devices(spec)
    _check_linux(spec.get("linux", {}))


def check_process(process: Process) -> None:
    """Check the part of a process that says what to run; for ``exec`` too."""
    if not process.get("args"):
        raise ConfigError("process.args is empty")
    if not process["cwd"].startswith("/"):
        raise ConfigError(f"process.cwd {process['cwd']!r} is not absolute")
    if not -1000 <= process.get("oomScoreAdj", 0) <= 1000:
        raise ConfigError(f"process.oomScoreAdj {process['oomScoreAdj']} is not from -1000 to 1000")
    seen = set()
    for limit in process.get("rlimits", []):
        if limit["type"].removeprefix("RLIMIT_") not in RLIMITS:
            raise ConfigError(f"unknown limit {limit['type']!r}")
        if limit["type"] in seen:
            raise ConfigError(f"process.rlimits contains {limit['type']} twice")
        seen.add(limit["type"])


def _check_namespaces(spec: Spec) -> None:
    found = set()
    for namespace in spec.get("linux", {}).get("namespaces", []):
        kind, path = namespace["type"], namespace.get("path", "")
        if kind not in namespaces.NAMESPACES:
            raise ConfigError(f"unknown namespace type {kind!r}")
        if kind in found:
            raise ConfigError(f"linux.namespaces contains {kind} twice")
        found.add(kind)
        if path and not path.startswith("/"):
            raise ConfigError(f"the path {path!r} of the {kind} namespace is not absolute")
    if namespaces.shares_mounts(spec) and "user" in namespaces.types(spec):
        raise ConfigError("a new user namespace needs a new mount namespace: it has no rights over another's mounts")
    for name in ("hostname", "domainname"):
        if spec.get(name) and "uts" not in found:
            raise ConfigError(f"{name} needs a uts namespace: it would change the host's")


def _check_id_maps(spec: Spec) -> None:
    linux = spec.get("linux", {})
    if "user" in namespaces.types(spec):
        for kind in ("uid", "gid"):
            if not linux.get(f"{kind}Mappings"):
                raise ConfigError(f"linux.{kind}Mappings is empty, but a new user namespace needs it")
    for mount in spec.get("mounts", []):
        wanted = {"idmap", "ridmap"} & set(mount.get("options", []))
        if wanted and not mount.get("uidMappings") and not namespaces.has_own_ids(spec):
            raise ConfigError(f"can't id-map {mount['destination']}: neither the mount nor the container has mappings")


def _check_hooks(spec: Spec) -> None:
    found: dict[str, Any] = {**spec.get("hooks", {})}
    for name, hooks in found.items():
        for hook in hooks:
            if not hook["path"].startswith("/"):
                raise ConfigError(f"the path {hook['path']!r} of a {name} hook is not absolute")
            if "timeout" in hook and hook["timeout"] <= 0:
                raise ConfigError(f"the timeout {hook['timeout']} of the {name} hook {hook['path']} is not above 0")


def _check_sysctl(spec: Spec) -> None:
    """A setting must belong to a namespace that isn't the host's, or the host would change."""
    found = namespaces.types(spec) | namespaces.joined(spec).keys()
    for name, value in spec.get("linux", {}).get("sysctl", {}).items():
        if name.replace("/", ".") == "kernel.domainname" and (spec.get("domainname") or value) != value:
            raise ConfigError(f"linux.sysctl: {name} is {value!r}, but domainname is {spec['domainname']!r}")
        kind = namespace_of(name)
        if not kind:
            raise ConfigError(f"linux.sysctl: {name} belongs to no namespace: it would change the host")
        if kind not in found:
            raise ConfigError(
                f"linux.sysctl: {name} needs a {kind} namespace of the container: it would change the host"
            )


def namespace_of(sysctl: str) -> str:
    """Return the type of the namespace that a kernel setting belongs to; "" for none."""
    dotted = sysctl.replace("/", ".") if "/" in sysctl.partition(".")[0] else sysctl
    return next((kind for prefix, kind in SYSCTLS.items() if (dotted + ".").startswith(prefix)), "")


def _check_net_devices(spec: Spec) -> None:
    devices = namespaces.net_devices(spec)
    if devices and "network" not in namespaces.types(spec) | namespaces.joined(spec).keys():
        raise ConfigError("linux.netDevices needs a network namespace of the container")
    for name in (*devices, *devices.values()):
        # The kernel's rules: IFNAMSIZ, dev_valid_name().
        if not 0 < len(fsencode(name)) < 16 or name in (".", "..") or {*"/:"} & {*name} or name.split() != [name]:
            raise ConfigError(f"linux.netDevices: {name!r} is not a valid name of a network device")
    if len(set(devices.values())) < len(devices):
        raise ConfigError("linux.netDevices gives two devices the same name")


def _check_linux(linux: Linux) -> None:
    propagation = linux.get("rootfsPropagation", "")
    if propagation and propagation not in PROPAGATION:
        raise ConfigError(f"unknown rootfsPropagation {propagation!r}")
    if '"' in linux.get("mountLabel", ""):
        raise ConfigError(f"linux.mountLabel {linux['mountLabel']!r} contains a quotation mark")
    if "intelRdt" in linux:
        raise ConfigError("linux.intelRdt: minibox doesn't support resctrl")
    for kind, paths in (("masked", linux.get("maskedPaths", [])), ("readonly", linux.get("readonlyPaths", []))):
        for path in paths:
            if not path.startswith("/"):
                raise ConfigError(f"linux.{kind}Paths has {path!r}, which is not absolute")
    for device in linux.get("devices", []):
        if device["type"] not in DEVICE_TYPES:
            raise ConfigError(f"unknown type {device['type']!r} of the device {device['path']}")
        if device["type"] != "p" and not {"major", "minor"} <= device.keys():
            raise ConfigError(f"the device {device['path']} has no major and minor number")
