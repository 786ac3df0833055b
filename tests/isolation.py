"""The tests' own corner of the machine, entered once a session by root.

A mount namespace and a network namespace of our own: links, nftables and mounts of the machine are
never touched, whatever a test does or however it is killed. In the mount namespace /etc/passwd and
its kin have an ordinary user more, with ranges of subordinate ids, so that no user is added to the
machine either. The root is shared, as systemd makes it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
USER_NAME = "mbtester"
USER_ID = 54321
SUBORDINATE_IDS = (700_000_000, 65536)

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
PR_SET_CHILD_SUBREAPER = 36
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)


def enter(directory: Path) -> None:
    """Move this thread, and what it starts, to namespaces of its own; ``directory`` keeps the files they need.

    Raises:
        OSError: the kernel refused one of the steps.
    """
    _call("unshare", CLONE_NEWNS | CLONE_NEWNET)
    _mount("none", "/", MS_REC | MS_PRIVATE)
    _mount("none", "/", MS_REC | MS_SHARED)
    _set_up_loopback()
    _add_user(directory)


def become_subreaper() -> None:
    """Orphans of what the tests start become our children, where the leak check sees them."""
    _call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@contextmanager
def v2_without_controllers() -> Iterator[None]:
    """crun refuses a v2 hierarchy with controllers beside v1 ones: in our mount namespace it seems to have none.

    To mount what is left over as v1 is no way out: that can't be while any container of the machine's has it by v2.
    """
    controllers = CGROUPS / "unified/cgroup.controllers"
    if not controllers.exists() or not controllers.read_text().strip():
        yield
        return
    _mount("/dev/null", str(controllers), MS_BIND)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(controllers)], check=False)


def _add_user(directory: Path) -> None:
    start, count = SUBORDINATE_IDS
    home = directory / "home"
    home.mkdir(mode=0o755)
    os.chown(home, USER_ID, USER_ID)
    lines = {
        "passwd": f"{USER_NAME}:x:{USER_ID}:{USER_ID}::{home}:/bin/sh",
        "group": f"{USER_NAME}:x:{USER_ID}:",
        "subuid": f"{USER_NAME}:{start}:{count}",
        "subgid": f"{USER_NAME}:{start}:{count}",
    }
    for name, line in lines.items():
        original = Path("/etc") / name
        if not original.exists():
            continue
        text = original.read_text()
        copy = directory / name
        copy.write_text(text + ("" if text.endswith("\n") or not text else "\n") + line + "\n")
        copy.chmod(0o644)
        _mount(str(copy), str(original), MS_BIND)


def _set_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def _mount(source: str, target: str, flags: int) -> None:
    _call("mount", source.encode(), target.encode(), None, ctypes.c_ulong(flags), None)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")
