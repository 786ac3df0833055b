"""Check requested AppArmor and SELinux labels against what the host supports."""

from __future__ import annotations

from minibox.errors import ConfigError
from minibox.linux.lsm import has_apparmor, has_selinux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.oci.runtime import Linux, Process

UNCONFINED = "unconfined"


def check(process: Process, linux: Linux | None = None) -> None:
    """Refuse a label that the host can't apply, and remove one that means "none".

    Raises:
        ConfigError: the label's security module isn't enabled.
    """
    if not process.get("apparmorProfile") or (process["apparmorProfile"] == UNCONFINED and not has_apparmor()):
        process.pop("apparmorProfile", None)
    elif not has_apparmor():
        raise _absent(f"process.apparmorProfile {process['apparmorProfile']!r}", "AppArmor")
    if process.get("selinuxLabel") and not has_selinux():
        raise _absent(f"process.selinuxLabel {process['selinuxLabel']!r}", "SELinux")
    if linux and linux.get("mountLabel") and not has_selinux():
        raise _absent(f"linux.mountLabel {linux['mountLabel']!r}", "SELinux")


def _absent(what: str, module: str) -> ConfigError:
    return ConfigError(f"{what}: {module} is not enabled on this host")
