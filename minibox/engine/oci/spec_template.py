"""`minibox-oci spec`: write a config.json to start from."""

from __future__ import annotations

import os

from minibox.base.go_json import text
from minibox.engine.oci.bundle import CONFIG
from minibox.engine.oci.state import VERSION
from minibox.engine.spec.security import MASKED_PATHS, READONLY_PATHS
from minibox.errors import MiniboxError, kernel_says
from minibox.linux.cgroup.host import detect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.oci.runtime import LinuxNamespace, Mount, NamespaceType, Spec

CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_ENV = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]
_SHUT = ["nosuid", "noexec", "nodev"]


def write_template(bundle: str, *, rootless: bool) -> None:
    """Write config.json in the directory ``bundle``; "" for the current one.

    Args:
        rootless: for an ordinary user, who maps only the own id.

    Raises:
        MiniboxError: it exists, or can't be written.
    """
    path = os.path.join(bundle or ".", CONFIG)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise MiniboxError(f"file {path} exists", "remove it first") from None
    except OSError as error:
        raise MiniboxError(f"write {path}: {kernel_says(error)}") from error
    with open(fd, "wb", 0) as file:
        file.write(text(template(rootless=rootless, own_cgroups=detect().mode == "v2"), "\t").encode())


def template(*, rootless: bool, own_cgroups: bool) -> Spec:
    """Return a Spec with a shell in a terminal and the usual isolation.

    Args:
        own_cgroups: add a cgroup namespace, as runc does on hosts with cgroup v2 only.
    """
    kinds: tuple[NamespaceType, ...] = ("pid", "network", "ipc", "uts", "mount", *(("cgroup",) if own_cgroups else ()))
    spec: Spec = {
        "ociVersion": VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": _ENV,
            "cwd": "/",
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "minibox",
        "mounts": _mounts(rootless=rootless),
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": _namespaces(*kinds),
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
        },
    }
    if rootless:
        linux = spec["linux"]
        linux["namespaces"] = _namespaces(*(kind for kind in kinds if kind != "network"), "user")
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
        del linux["resources"]
    return spec


def _namespaces(*kinds: NamespaceType) -> list[LinuxNamespace]:
    return [{"type": kind} for kind in kinds]


def _mounts(*, rootless: bool) -> list[Mount]:
    group = [] if rootless else ["gid=5"]  # not mapped if there is only one id
    sys: Mount = {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*_SHUT, "ro"]}
    if rootless:  # only the network namespace's owner may mount sysfs
        sys = {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", *_SHUT, "ro"]}
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *group]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*_SHUT, "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": _SHUT},
        sys,
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*_SHUT, "relatime", "ro"]},
    ]  # fmt: skip
