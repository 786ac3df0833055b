"""``--security-opt``, ``--privileged``, ``--cap-add`` and ``--cap-drop``: how strictly the container is confined."""

from __future__ import annotations

from minibox.base.values import truth
from minibox.errors import Unsupported, UsageError, kernel_says
from minibox.linux.capabilities import NAMES, adjusted
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    """The parsed ``--security-opt``.

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


def parse_security(options: RunOptions) -> Security:
    """Parse ``--security-opt`` (``name``, ``name=value``, or the old ``name:value``) and ``--privileged``.

    Raises:
        UsageError: an unknown option or value.
        Unsupported: an AppArmor profile on a host without AppArmor, or an SELinux label.
    """
    no_new_privileges, writable_cgroups = False, options.privileged
    system_paths = not options.privileged
    seccomp, apparmor = "unconfined" if options.privileged else "default", ""
    for word in options.security_opt:
        name, equals, value = word.partition("=")
        if not equals:
            name, equals, value = word.partition(":")
        if name == "no-new-privileges":
            no_new_privileges = _boolean(value, word)
        elif name == "writable-cgroups" and equals:
            writable_cgroups = _boolean(value, word)
        elif name == "seccomp" and value and "\0" not in value:
            seccomp = "default" if value == "builtin" else value
        elif name == "systempaths" and value == "unconfined":
            system_paths = False
        elif name == "apparmor" and value and "\0" not in value:
            apparmor = "" if value == "unconfined" else value
        elif name == "label":
            if value != "disable":
                raise Unsupported(
                    f"security option {word!r} is not supported", hint="minibox doesn't set SELinux labels"
                )
        else:
            raise UsageError(
                f"invalid security option {word!r}",
                hint="use apparmor=PROFILE, no-new-privileges, seccomp=FILE|unconfined, systempaths=unconfined, "
                "writable-cgroups=true",
            )
    if apparmor:
        from minibox.linux.lsm import has_apparmor

        if not has_apparmor():
            raise Unsupported(f"security option 'apparmor={apparmor}': AppArmor is not enabled on this host")
    return Security(no_new_privileges, seccomp, system_paths, writable_cgroups, apparmor)


def _boolean(value: str, word: str) -> bool:
    try:
        return not value or truth(value)
    except ValueError:
        raise UsageError(f"invalid security option {word!r}: {value!r} is neither true nor false") from None


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
