"""Summary of minibox on this machine, in the format of `docker info`: `info`, `system info`.

Source: https://docs.docker.com/reference/api/engine/, SystemInfo.
"""

from __future__ import annotations

import os
import platform
from typing import Any

from minibox.base.home import Home
from minibox.engine.container import collection
from minibox.engine.host import id_map_support
from minibox.engine.report import doctor
from minibox.errors import ProbeFailed
from minibox.image.layout.inventory import inventory
from minibox.image.layout.layout import Layout
from minibox.linux import cgroup
from minibox.linux.cgroup import CgroupHost, scope
from minibox.linux.cgroup.usage_meter import host_memory_bytes
from minibox.linux.mount_table import file_system_type


def info(home: Home, *, storage_driver: str, version: str) -> dict[str, Any]:
    """The numbers of containers and images, the drivers and security options, the machine, and what it lacks.

    Args:
        storage_driver: of new containers; "" for the default.
        version: of minibox.
    """
    statuses = [each["Status"] for each in collection.list_containers(home)]
    host, uname = cgroup.detect(), os.uname()
    checks = [doctor.check_kernel(uname.release), doctor.check_cgroups(), doctor.check_seccomp(),
              doctor.check_directory("root", home.root), doctor.check_directory("runroot", home.runroot)]  # fmt: skip
    return {
        "Containers": len(statuses),
        "ContainersRunning": statuses.count("running") + statuses.count("restarting"),
        "ContainersPaused": statuses.count("paused"),
        "ContainersStopped": sum(each not in ("running", "restarting", "paused") for each in statuses),
        "Images": len(inventory(Layout(home.root))),
        "ServerVersion": version,
        "Driver": storage_driver or "overlay",
        "DriverStatus": [["Backing Filesystem", file_system_type(doctor.nearest_existing(home.root))]],
        "LoggingDriver": "json-file",
        "CgroupDriver": _cgroup_driver(host),
        "CgroupVersion": {"none": "", "v2": "2"}.get(host.mode, "1"),
        "SecurityOptions": _security_options(home.root, storage_driver),
        "KernelVersion": uname.release,
        "OperatingSystem": _distribution(),
        "OSType": "linux",
        "Architecture": uname.machine,
        "NCPU": os.cpu_count() or 1,
        "MemTotal": host_memory_bytes(),
        "Name": uname.nodename,
        "DockerRootDir": home.root,
        "Runroot": home.runroot,
        "Warnings": [f"{each.name}: {each.consequence}" for each in checks if each.status != doctor.PASS],
    }


def _cgroup_driver(host: CgroupHost) -> str:
    """What makes the cgroups of containers with limits: systemd, minibox ("cgroupfs"), or nothing."""
    euid = os.geteuid()
    if euid and host.mode == "v2" and scope.usable(euid, os.environ):
        return "systemd"
    return "cgroupfs" if host.usable else "none"


def _security_options(root: str, storage_driver: str) -> list[str]:
    options = ["name=seccomp,profile=builtin", "name=cgroupns"]
    if os.geteuid():
        return [*options, "name=rootless"]
    try:
        return options if id_map_support.refusal(root, storage_driver) else [*options, "name=userns"]
    except ProbeFailed:
        return options  # a start reports the error


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
