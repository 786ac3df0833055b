"""Look at a process's namespaces from within: a program of our own that enters them and says what it finds.

It runs only this file and the kernel's calls, no program and no library of the machine.
"""

from __future__ import annotations

import os
import sys
from fcntl import ioctl

from minibox.base.paths import package_directory
from minibox.errors import MiniboxError, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from typing import Any

NS_GET_USERNS = 0xB701  # linux/nsfs.h
TIMEOUT_S = 60
LOOK_S, ON_THE_WAY_S = 0.05, 1
CODE = "import sys; sys.path[:] = sys.argv[1].split(':'); from minibox.lab.inside import main; main(*sys.argv[2:])"


def look(pid: int) -> dict[str, Any]:
    """Return what is in the mount and UTS namespaces of a process: ``hostname``, ``root``, ``mountinfo``.

    Raises:
        MiniboxError: the process has ended, or its namespaces can't be entered.
    """
    found: dict[str, Any] = _result(_start(pid, "tables"), pid)
    return found


def network(pid: int) -> dict[str, Any]:
    """Return what is in the network namespace of a process; see `netlink.tables`. Raises the errors of `look`."""
    found: dict[str, Any] = _result(_start(pid, "network"), pid)
    return found


def reach(pid: int, other: int, address: str) -> str:
    """Send a packet from the network namespace of one process to an address that another's has.

    Returns:
        The address from which it came, as the receiver sees it; "" if nothing has come.
    """
    import json
    from subprocess import TimeoutExpired

    receiver = _start(other, "receive", address)
    assert receiver.stdout is not None
    if receiver.stdout.readline().strip() != b"bound":
        receiver.communicate()
        return ""
    sender = _start(pid, "send", address)
    try:
        while sender.poll() is None:
            with suppress(TimeoutExpired):
                receiver.wait(LOOK_S)
                break
        with suppress(TimeoutExpired):  # what was sent last may be under way
            receiver.wait(ON_THE_WAY_S)
    finally:
        for each in (sender, receiver):
            each.kill()
    out, _ = receiver.communicate()
    sender.communicate()
    return str(json.loads(out)) if out.strip() else ""


def _start(pid: int, what: str, *words: str) -> subprocess.Popen[bytes]:
    import subprocess

    places = dict.fromkeys(
        [os.path.dirname(package_directory()), *(place for place in sys.path if os.path.isabs(place))]
    )
    argv = [sys.executable, "-I", "-S", "-c", CODE, ":".join(places), str(pid), what, *words]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _result(started: subprocess.Popen[bytes], pid: int) -> Any:
    import json

    out, err = started.communicate(timeout=TIMEOUT_S)
    if started.returncode:
        last = err.decode(errors="replace").strip().rpartition("\n")[2]
        raise MiniboxError(f"look into the namespaces of process {pid}: {last}")
    return json.loads(out)


# ---- in the program that enters them --------------------------------------------------------------


def main(pid: str, what: str, *words: str) -> None:
    """Enter namespaces of a process, and print what is found as JSON."""
    import json

    found: Any
    if what == "tables":
        # What is opened now stays the host's, whatever is mounted on /proc there.
        own = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _enter(pid, "uts", "mnt")
        root = os.stat("/")
        table_fd = os.open("mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=own)
        with open(table_fd, encoding="utf-8", errors="surrogateescape") as file:
            found = {"hostname": os.uname().nodename, "root": (root.st_dev, root.st_ino), "mountinfo": file.read()}
    else:
        from minibox.lab import netlink

        _enter(pid, "net")
        found = netlink.tables() if what == "network" else getattr(netlink, what)(*words)
    print(json.dumps(found))


def _enter(pid: str, *kinds: str) -> None:
    from minibox.linux import setns

    files = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds}
    ours = {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in kinds}
    entered = os.stat("/proc/self/ns/user").st_ino
    for kind, fd in files.items():
        if os.fstat(fd).st_ino == ours[kind]:
            continue
        try:
            owner = ioctl(fd, NS_GET_USERNS)
            if os.fstat(owner).st_ino != entered:
                setns(owner)
                entered = os.fstat(owner).st_ino
        except PermissionError:
            pass  # it belongs to a user namespace above the one that we are in
        setns(fd)
