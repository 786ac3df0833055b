"""``--security-opt``, ``--privileged``, ``--cap-add`` and ``--cap-drop``: how strictly the container is confined."""

from __future__ import annotations

from minibox.errors import Unsupported, UsageError, kernel_says
from minibox.linux.capabilities import NAMES, adjusted
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.engine.spec.host import HostFacts
    from minibox.engine.spec.options import RunOptions
    from minibox.oci.runtime import LinuxSeccomp

MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@record
class Security:
    """What all ``--security-opt`` ask for together.

    Attributes:
        seccomp: "default", "unconfined", or the path of a profile.
        system_paths: mask and protect the paths of /proc and /sys.
        writable_cgroups: mount /sys/fs/cgroup read-write.
        apparmor: the AppArmor profile; "" for the caller's.
    """

    no_new_privileges: bool = False
    seccomp: str = "default"
    system_paths: bool = True
    writable_cgroups: bool = False
    apparmor: str = ""


def security_of(options: RunOptions) -> Security:
    """Return what ``--security-opt`` and ``--privileged`` ask for.

    Raises:
        Unsupported: an AppArmor profile on a host without AppArmor.
    """
    asked: dict[str, Any] = {each.name: each.value for each in options.security_opt if each.name != "label"}
    if options.privileged:
        asked = {"seccomp": "unconfined", "system_paths": False, "writable_cgroups": True, **asked}
    security = Security(**asked)
    if security.apparmor:
        from minibox.linux.lsm import has_apparmor

        if not has_apparmor():
            raise Unsupported(f"security option 'apparmor={security.apparmor}': AppArmor is not enabled on this host")
    return security


def capabilities_of(options: RunOptions, host: HostFacts) -> list[str]:
    """The names of the capabilities that the container keeps: by ``--cap-add``, ``--cap-drop`` and ``--privileged``."""
    if options.privileged:
        return list(NAMES[: host.last_cap + 1])
    return adjusted(options.cap_add, options.cap_drop, last=host.last_cap)


def seccomp_from_file(path: str, capabilities: list[str], host: HostFacts) -> LinuxSeccomp:
    """Read the profile of ``--security-opt seccomp=FILE``, in Docker's format.

    Raises:
        UsageError: it can't be read, or is no profile.
    """
    from minibox.linux.seccomp.profile_file import resolve_profile

    try:
        text = host.read(path)
    except (OSError, ValueError) as error:
        said = kernel_says(error) if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"read seccomp profile {path!r}: {said}", hint="give a profile in JSON, or unconfined"
        ) from error
    return resolve_profile(text, path, capabilities)
