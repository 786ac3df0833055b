"""Read seccomp profiles from files in Docker's JSON format, and resolve them to OCI ``linux.seccomp.program``.

The format is OCI's, with conditions: rules may apply only to some capabilities, architectures or kernels, and
``archMap`` replaces the list of architectures. Off the hot path: it imports msgspec.
Source: https://docs.docker.com/engine/security/seccomp/ and moby's profiles/seccomp.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from minibox.errors import ConfigError

if TYPE_CHECKING:
    from minibox.oci.runtime import LinuxSeccomp, LinuxSyscall

_MACHINES = {
    "x86_64": "amd64",
    "i686": "x86",
    "aarch64": "arm64",
    "armv7l": "arm",
    "mips64": "mips64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
_TOKENS = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}


class _Conditions(msgspec.Struct):
    caps: list[str] | None = None
    arches: list[str] | None = None
    minKernel: str = ""


class _Arg(msgspec.Struct):
    index: int
    value: int
    op: str
    valueTwo: int = 0


class _Rule(msgspec.Struct):
    action: str
    names: list[str] | None = None
    name: str = ""
    errnoRet: int | None = None
    errno: str = ""
    args: list[_Arg] | None = None
    includes: _Conditions | None = None
    excludes: _Conditions | None = None


class _ArchMap(msgspec.Struct):
    architecture: str
    subArchitectures: list[str] | None = None


class _Profile(msgspec.Struct):
    defaultAction: str
    defaultErrnoRet: int | None = None
    defaultErrno: str = ""
    architectures: list[str] | None = None
    archMap: list[_ArchMap] | None = None
    flags: list[str] | None = None
    listenerPath: str = ""
    syscalls: list[_Rule] | None = None


def resolve_profile(text: bytes, path: str, capabilities: Iterable[str]) -> LinuxSeccomp:
    """Resolve a profile to OCI ``linux.seccomp.program``, for a container with these bounding capabilities on this host.

    Raises:
        ConfigError: it isn't JSON, a field has the wrong type, or fields contradict each other; names ``path``.
    """
    try:
        profile = msgspec.json.decode(text, type=_Profile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"seccomp profile {path}: {error}", hint="use the format of Docker's profiles") from error
    if profile.architectures and profile.archMap:
        raise ConfigError(f"seccomp profile {path}: both architectures and archMap are given", hint="use one of them")
    host = os.uname()
    architecture = _MACHINES.get(host.machine, host.machine)
    result: LinuxSeccomp = {"defaultAction": profile.defaultAction}
    number = _errno(profile.defaultErrnoRet, profile.defaultErrno, path)
    if number is not None:
        result["defaultErrnoRet"] = number
    architectures = profile.architectures or _mapped(profile.archMap or [], architecture)
    if architectures:
        result["architectures"] = architectures
    if profile.flags:
        result["flags"] = profile.flags
    if profile.listenerPath:
        result["listenerPath"] = profile.listenerPath
    held = set(capabilities)
    rules = []
    for rule in profile.syscalls or ():
        if bool(rule.name) == bool(rule.names):
            raise ConfigError(f"seccomp profile {path}: a rule needs either name or names")
        if _holds(rule.includes, rule.excludes, held, architecture, host.release, path):
            rules.append(_rule(rule, path))
    result["syscalls"] = rules
    return result


def _rule(rule: _Rule, path: str) -> LinuxSyscall:
    result: LinuxSyscall = {"names": rule.names or [rule.name], "action": rule.action}
    number = _errno(rule.errnoRet, rule.errno, path)
    if number is not None:
        result["errnoRet"] = number
    if rule.args:
        result["args"] = [
            {"index": arg.index, "value": arg.value, "valueTwo": arg.valueTwo, "op": arg.op} for arg in rule.args
        ]
    return result


def _errno(number: int | None, name: str, path: str) -> int | None:
    """Return ``errnoRet``, or the number of podman's ``errno`` if only that is given."""
    if number is not None or not name:
        return number
    found = getattr(errno, name, None) if name.startswith("E") else None
    if not isinstance(found, int):
        raise ConfigError(f"seccomp profile {path}: unknown errno {name!r}", hint="for example EPERM")
    return found


def _mapped(maps: list[_ArchMap], architecture: str) -> list[str]:
    token = _TOKENS.get(architecture, f"SCMP_ARCH_{architecture.upper()}")
    for each in maps:
        if each.architecture == token:
            return [token, *(each.subArchitectures or [])]
    return []


def _holds(
    includes: _Conditions | None,
    excludes: _Conditions | None,
    held: set[str],
    architecture: str,
    release: str,
    path: str,
) -> bool:
    """Tell whether a rule applies: all of ``includes`` and none of ``excludes``, as in Docker."""
    if excludes is not None:
        if architecture in (excludes.arches or ()) or held.intersection(excludes.caps or ()):
            return False
        if excludes.minKernel and _version(release, path) >= _version(excludes.minKernel, path):
            return False
    if includes is None:
        return True
    if includes.arches and architecture not in includes.arches:
        return False
    if includes.minKernel and _version(release, path) < _version(includes.minKernel, path):
        return False
    return held.issuperset(includes.caps or ())


def _version(text: str, path: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    if not (major + minor).isascii() or not major.isdecimal() or not minor.isdecimal():
        raise ConfigError(f"seccomp profile {path}: {text!r} is not a kernel version", hint="write it as 4.8")
    return int(major), int(minor)
