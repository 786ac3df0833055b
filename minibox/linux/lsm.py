"""Find out whether this kernel uses AppArmor or SELinux."""

from __future__ import annotations

import os

from minibox.base.files import text_of


def has_apparmor() -> bool:
    """Tell whether AppArmor is enabled."""
    return text_of("/sys/module/apparmor/parameters/enabled").strip() == "Y"


def has_selinux() -> bool:
    """Tell whether SELinux is enabled and has a policy. Without one, the only label is the kernel's."""
    return os.path.isdir("/sys/fs/selinux") and text_of("/proc/self/attr/current").strip("\0\n") not in ("", "kernel")
