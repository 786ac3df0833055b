"""Read seccomp profiles from files in Docker's JSON format, and resolve them to OCI ``linux.seccomp.program``.

The format is OCI's, with conditions: rules may apply only to some capabilities, architectures or kernels, and
``archMap`` replaces the list of architectures.
Source: https://docs.docker.com/engine/security/seccomp/ and moby's profiles/seccomp.
"""

from __future__ import annotations

import errno
import os

from minibox.base.json_text import loads
from minibox.errors import ConfigError
from minibox.oci.schema import checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

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
_CONDITIONS: Any = {"caps": [str], "arches": [str], "minKernel": str}
_PROFILE: Any = {
    "defaultAction!": str,
    "defaultErrnoRet": int,
    "defaultErrno": str,
    "architectures": [str],
    "archMap": [{"architecture!": str, "subArchitectures": [str]}],
    "flags": [str],
    "listenerPath": str,
    "syscalls": [
        {
            "names": [str],
            "name": str,
            "action!": str,
            "errnoRet": int,
            "errno": str,
            "args": [{"index!": int, "value!": int, "valueTwo": int, "op!": str}],
            "includes": _CONDITIONS,
            "excludes": _CONDITIONS,
        }
    ],
}


def resolve_profile(text: bytes, path: str, capabilities: Iterable[str]) -> LinuxSeccomp:
    """Resolve a profile to OCI ``linux.seccomp.program``, for a container with these bounding capabilities on this host.

    Raises:
        ConfigError: it isn't JSON, a field has the wrong type, or fields contradict each other; names ``path``.
    """
    where = f"seccomp profile {path}"
    try:
        profile = checked(loads(text), _PROFILE, where)
    except ConfigError as error:
        raise ConfigError(str(error), hint="use the format of Docker's profiles") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: {error}", hint="use the format of Docker's profiles") from error
    if profile.get("architectures") and profile.get("archMap"):
        raise ConfigError(f"{where}: both architectures and archMap are given", hint="use one of them")
    host = os.uname()
    architecture = _MACHINES.get(host.machine, host.machine)
    result: LinuxSeccomp = {"defaultAction": profile["defaultAction"]}
    number = _errno(profile.get("defaultErrnoRet"), profile.get("defaultErrno"), path)
    if number is not None:
        result["defaultErrnoRet"] = number
    architectures = profile.get("architectures") or _mapped(profile.get("archMap", []), architecture)
    if architectures:
        result["architectures"] = architectures
    if profile.get("flags"):
        result["flags"] = profile["flags"]
    if profile.get("listenerPath"):
        result["listenerPath"] = profile["listenerPath"]
    held = set(capabilities)
    rules = []
    for rule in profile.get("syscalls", ()):
        if bool(rule.get("name")) == bool(rule.get("names")):
            raise ConfigError(f"{where}: a rule needs either name or names")
        if _holds(rule.get("includes", {}), rule.get("excludes", {}), held, architecture, host.release, path):
            rules.append(_rule(rule, path))
    result["syscalls"] = rules
    return result


def _rule(rule: Mapping[str, Any], path: str) -> LinuxSyscall:
    result: LinuxSyscall = {"names": rule.get("names") or [rule["name"]], "action": rule["action"]}
    number = _errno(rule.get("errnoRet"), rule.get("errno"), path)
    if number is not None:
        result["errnoRet"] = number
    if rule.get("args"):
        for arg in rule["args"]:
            arg.setdefault("valueTwo", 0)
        result["args"] = rule["args"]
    return result


def _errno(number: int | None, name: str | None, path: str) -> int | None:
    """Return ``errnoRet``, or the number of podman's ``errno`` if only that is given."""
    if number is not None or not name:
        return number
    found = getattr(errno, name, None) if name.startswith("E") else None
    if not isinstance(found, int):
        raise ConfigError(f"seccomp profile {path}: unknown errno {name!r}", hint="for example EPERM")
    return found


def _mapped(maps: list[dict[str, Any]], architecture: str) -> list[str]:
    token = _TOKENS.get(architecture, f"SCMP_ARCH_{architecture.upper()}")
    for each in maps:
        if each["architecture"] == token:
            return [token, *each.get("subArchitectures", [])]
    return []


def _holds(
    includes: Mapping[str, Any],
    excludes: Mapping[str, Any],
    held: set[str],
    architecture: str,
    release: str,
    path: str,
) -> bool:
    """Tell whether a rule applies: all of ``includes`` and none of ``excludes``, as in Docker."""
    if architecture in excludes.get("arches", ()) or held.intersection(excludes.get("caps", ())):
        return False
    if excludes.get("minKernel") and _version(release, path) >= _version(excludes["minKernel"], path):
        return False
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if includes.get("minKernel") and _version(release, path) < _version(includes["minKernel"], path):
        return False
    return held.issuperset(includes.get("caps", ()))


def _version(text: str, path: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    if not (major + minor).isascii() or not major.isdecimal() or not minor.isdecimal():
        raise ConfigError(f"seccomp profile {path}: {text!r} is not a kernel version", hint="write it as 4.8")
    return int(major), int(minor)
