"""Devices: ``--device``, all the host's devices for ``--privileged``, and the cgroup's device rules."""

from __future__ import annotations

import os

from minibox.errors import UsageError, kernel_says
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.docker_words.devices import Device, DeviceRule
    from minibox.engine.spec.host import HostFacts
    from minibox.oci.runtime import LinuxDevice, LinuxDeviceCgroup, Mount

# What every container may do (runtime-spec, config-linux.md, "Default Devices", and Docker's rules): mknod any device,
# which alone opens nothing, and use these.
_CHARACTER = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, -1))
# The runtime makes these itself, whatever the host has.
_NOT_COPIED = frozenset(("/dev/console", "/dev/ptmx", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"))
_OWN_DIRECTORIES = frozenset(("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/.lxc", "/dev/.lxd-mounts"))
_DEFAULT = frozenset(("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"))


@record
class Devices:
    """Devices beyond the default ones: nodes to make, or bind mounts where mknod isn't allowed."""

    nodes: tuple[LinuxDevice, ...]
    mounts: tuple[Mount, ...]
    rules: tuple[LinuxDeviceCgroup, ...]


def default_rules() -> list[LinuxDeviceCgroup]:
    """Return the cgroup's device rules of an ordinary container: the default devices only."""
    rules: list[LinuxDeviceCgroup] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "b", "access": "m"},
    ]
    for major, minor in _CHARACTER:
        rule: LinuxDeviceCgroup = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        if minor >= 0:
            rule["minor"] = minor
        rules.append(rule)
    return rules


def asked_rules(rules: tuple[DeviceRule, ...]) -> list[LinuxDeviceCgroup]:
    """Return the cgroup's rules of ``--device-cgroup-rule``."""
    found: list[LinuxDeviceCgroup] = []
    for each in rules:
        rule: LinuxDeviceCgroup = {"allow": True, "type": each.type, "access": each.access}
        if each.major >= 0:
            rule["major"] = each.major
        if each.minor >= 0:
            rule["minor"] = each.minor
        found.append(rule)
    return found


def make_devices(asked: tuple[Device, ...], host: HostFacts, *, bind: bool, privileged: bool) -> Devices:
    """Look up the devices of ``--device``; a directory stands for all devices in it.

    Args:
        bind: bind the host's nodes instead of making new ones, which an ordinary user can't.
        privileged: add all devices of the host.

    Raises:
        UsageError: a path is missing or not a device.
    """
    nodes: dict[str, LinuxDevice] = {}
    mounts: dict[str, Mount] = {}
    rules: list[LinuxDeviceCgroup] = [{"allow": True, "access": "rwm"}] if privileged else []
    found = [(path, path, "rwm") for path in _all_devices("/dev", host)] if privileged else []
    for each in asked:
        found += _requested(each, host)
    for source, path, access in found:
        try:
            info = host.stat(source)
        except OSError:
            continue  # unplugged since it was listed
        kind = "b" if info.st_mode & 0o170000 == 0o060000 else "c"
        major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
        if bind:
            mounts[path] = {
                "destination": path,
                "type": "bind",
                "source": source,
                "options": ["bind", "rprivate", "nosuid", "noexec"],
            }
        else:
            nodes[path] = {
                "path": path,
                "type": kind,
                "major": major,
                "minor": minor,
                "fileMode": info.st_mode & 0o7777,
                "uid": info.st_uid,
                "gid": info.st_gid,
            }
        if not privileged:
            rules.append({"allow": True, "type": kind, "major": major, "minor": minor, "access": access})
    return Devices(tuple(nodes.values()), tuple(mounts.values()), tuple(rules))


def _requested(device: Device, host: HostFacts) -> list[tuple[str, str, str]]:
    source = device.source
    try:
        mode = host.stat(source).st_mode & 0o170000
    except (OSError, ValueError) as error:
        said = kernel_says(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"can't look up device {source!r}: {said}", hint="ls -l /dev lists devices") from error
    if mode == 0o040000:
        inside = _all_devices(source, host)
        if inside:
            return [(entry, device.path + entry[len(source.rstrip("/")) :], device.access) for entry in inside]
    elif mode in (0o020000, 0o060000):
        return [(source, device.path, device.access)]
    raise UsageError(f"{source} is not a device", hint="to share a file or directory, use -v")


def _all_devices(directory: str, host: HostFacts) -> list[str]:
    """List the device nodes below a directory, without links and without those that every container has anyway."""
    found: list[str] = []
    try:
        names = sorted(host.list_dir(directory))
    except OSError:
        return found
    for name in names:
        path = f"{directory.rstrip('/')}/{name}"
        if path in _NOT_COPIED or path in _OWN_DIRECTORIES or path in _DEFAULT:
            continue
        try:
            mode = host.lstat(path).st_mode & 0o170000
        except OSError:
            continue
        if mode == 0o040000:
            found += _all_devices(path, host)
        elif mode in (0o020000, 0o060000):
            found.append(path)
    return found
