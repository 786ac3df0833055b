"""The types of `oci.runtime` as data, to check JSON from others on the hot path.

They are written by hand, because `typing` is slow to import. A test compares them with the types.

A type is ``str``, ``int``, ``bool``, a list of one type, a tuple of one type (an object with any names and values of
that type), or a dict with an object's fields; required ones end in ``!``.
"""

from __future__ import annotations

from minibox.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAMES = {str: "a string", int: "an integer", bool: "true or false", list: "a list", dict: "an object"}

# fmt: off
_ID_MAPPINGS: Any = [{"containerID!": int, "hostID!": int, "size!": int}]
_HOOKS: Any = [{"path!": str, "args": [str], "env": [str], "timeout": int}]
_THROTTLE: Any = [{"major!": int, "minor!": int, "rate!": int}]

PROCESS: Any = {
    "terminal": bool,
    "consoleSize": {"height!": int, "width!": int},
    "user": {"uid!": int, "gid!": int, "umask": int, "additionalGids": [int]},
    "args": [str],
    "commandLine": str,
    "env": [str],
    "cwd!": str,
    "capabilities": dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), [str]),
    "rlimits": [{"type!": str, "hard!": int, "soft!": int}],
    "noNewPrivileges": bool,
    "apparmorProfile": str,
    "oomScoreAdj": int,
    "scheduler": {"policy!": str, "nice": int, "priority": int, "flags": [str], "runtime": int, "deadline": int,
                  "period": int},
    "selinuxLabel": str,
    "ioPriority": {"class!": str, "priority": int},
    "execCPUAffinity": {"initial": str, "final": str},
}

RESOURCES: Any = {
    "devices": [{"allow!": bool, "type": str, "major": int, "minor": int, "access": str}],
    "memory": {"limit": int, "reservation": int, "swap": int, "kernel": int, "kernelTCP": int, "swappiness": int,
               "disableOOMKiller": bool, "useHierarchy": bool, "checkBeforeUpdate": bool},
    "cpu": {"shares": int, "quota": int, "burst": int, "period": int, "realtimeRuntime": int, "realtimePeriod": int,
            "cpus": str, "mems": str, "idle": int},
    "pids": {"limit!": int},
    "blockIO": {"weight": int, "leafWeight": int,
                "weightDevice": [{"major!": int, "minor!": int, "weight": int, "leafWeight": int}],
                "throttleReadBpsDevice": _THROTTLE, "throttleWriteBpsDevice": _THROTTLE,
                "throttleReadIOPSDevice": _THROTTLE, "throttleWriteIOPSDevice": _THROTTLE},
    "hugepageLimits": [{"pageSize!": str, "limit!": int}],
    "network": {"classID": int, "priorities": [{"name!": str, "priority!": int}]},
    "rdma": ({"hcaHandles": int, "hcaObjects": int},),
    "unified": (str,),
}

SPEC: Any = {
    "ociVersion!": str,
    "process": PROCESS,
    "root": {"path!": str, "readonly": bool},
    "hostname": str,
    "domainname": str,
    "mounts": [{"destination!": str, "type": str, "source": str, "options": [str], "uidMappings": _ID_MAPPINGS,
                "gidMappings": _ID_MAPPINGS}],
    "hooks": dict.fromkeys(
        ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"), _HOOKS
    ),
    "annotations": (str,),
    "linux": {
        "uidMappings": _ID_MAPPINGS,
        "gidMappings": _ID_MAPPINGS,
        "sysctl": (str,),
        "resources": RESOURCES,
        "cgroupsPath": str,
        "namespaces": [{"type!": str, "path": str}],
        "devices": [{"type!": str, "path!": str, "major": int, "minor": int, "fileMode": int, "uid": int, "gid": int}],
        "seccomp": {
            "defaultAction!": str,
            "defaultErrnoRet": int,
            "architectures": [str],
            "flags": [str],
            "listenerPath": str,
            "listenerMetadata": str,
            "syscalls": [{"names!": [str], "action!": str, "errnoRet": int,
                          "args": [{"index!": int, "value!": int, "valueTwo": int, "op!": str}]}],
        },
        "rootfsPropagation": str,
        "maskedPaths": [str],
        "readonlyPaths": [str],
        "mountLabel": str,
        "intelRdt": {
            "closID": str, "l3CacheSchema": str, "memBwSchema": str, "schemata": [str], "enableCMT": bool,
            "enableMBM": bool, "enableMonitoring": bool,
        },
        "memoryPolicy": {"mode!": str, "nodes": str, "flags": [str]},
        "personality": {"domain!": str, "flags": [str]},
        "timeOffsets": ({"secs": int, "nanosecs": int},),
        "netDevices": ({"name": str},),
    },
}
# fmt: on


def checked(value: Any, kind: Any, name: str) -> Any:
    """Check a value, and return a copy with only the fields of ``kind`` and without nulls, Go's word for unset fields.

    Args:
        name: what is checked, for the error.

    Raises:
        ConfigError: a field has the wrong type or is missing; with its path.
    """
    try:
        return _checked(value, kind)
    except _Wrong as wrong:
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in reversed(wrong.path))
        raise ConfigError(f"{name}: {path[1:] + ': ' if path else ''}{wrong.what}") from None


class _Wrong(Exception):
    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.path: list[str | int] = []


def _checked(value: Any, kind: Any) -> Any:
    wanted: Any = kind if isinstance(kind, type) else list if isinstance(kind, list) else dict
    # Not isinstance: in Python true is also an integer.
    if type(value) is not wanted:
        raise _Wrong(f"expected {_NAMES[wanted]}, got {_name_of(value)}")
    if wanted is kind:
        return value
    if isinstance(kind, dict):
        return _fields(value, kind)
    (inner,) = kind
    if wanted is list:
        return [_at(index, each, inner) for index, each in enumerate(value)]
    return {key: _at(key, each, inner) for key, each in value.items()}


def _fields(value: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for field, kind in fields.items():
        name = field.rstrip("!")
        each = value.get(name)
        if each is not None:
            found[name] = _at(name, each, kind)
        elif name != field:
            raise _Wrong(f"the field {name} is missing")
    return found


def _at(step: str | int, value: Any, kind: Any) -> Any:
    try:
        return _checked(value, kind)
    except _Wrong as wrong:
        wrong.path.append(step)
        raise


def _name_of(value: Any) -> str:
    return "null" if value is None else _NAMES.get(type(value), "a number")
