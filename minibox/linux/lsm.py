"""Find out whether this kernel uses AppArmor or SELinux."""

from __future__ import annotations

import os


def has_apparmor() -> bool:
    """Tell whether AppArmor is enabled."""
    return _read("/sys/module/apparmor/parameters/enabled") == b"Y"


def has_selinux() -> bool:
    """Tell whether SELinux is enabled and has a policy. Without one, the only label is the kernel's."""
    return os.path.isdir("/sys/fs/selinux") and _read("/proc/self/attr/current").rstrip(b"\0") not in (b"", b"kernel")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", 0) as file:
            return file.readall().strip()
    except OSError:
        return b""
