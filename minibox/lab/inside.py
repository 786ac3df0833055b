"""Look at a process's namespaces from within: a program of our own that enters them and says what it finds.

It runs only this file and the kernel's calls, no program and no library of the machine.
"""

from __future__ import annotations

import os
import sys
from fcntl import ioctl

from minibox.base.paths import package_directory
from minibox.errors import MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NS_GET_USERNS = 0xB701  # linux/nsfs.h
TIMEOUT_S = 30
CODE = "import sys; sys.path[:] = sys.argv[1].split(':'); from minibox.lab.inside import main; main(*sys.argv[2:])"


def look(pid: int) -> dict[str, Any]:
    """Return what `main` finds in the mount, UTS and network namespaces of a process.

    Raises:
        MiniboxError: the process has ended, or its namespaces can't be entered.
    """
    import json
    import subprocess

    places = dict.fromkeys(
        [os.path.dirname(package_directory()), *(place for place in sys.path if os.path.isabs(place))]
    )
    argv = [sys.executable, "-I", "-S", "-c", CODE, ":".join(places), str(pid)]
    done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise MiniboxError(f"look into the namespaces of process {pid}: {last}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(pid: str) -> None:
    """Enter the namespaces of a process, and print what is in them as JSON."""
    import json

    from minibox.linux import setns

    # What is opened now stays the host's, whatever is mounted on /proc there.
    own = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    kinds = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("uts", "net", "mnt")}
    entered = _number("/proc/self/ns/user")
    for kind, fd in kinds.items():
        if os.fstat(fd).st_ino == _number_of(own, kind):
            continue
        try:
            owner = ioctl(fd, NS_GET_USERNS)
            if os.fstat(owner).st_ino != entered:
                setns(owner)
                entered = os.fstat(owner).st_ino
        except PermissionError:
            pass  # it belongs to a user namespace above the one that we are in
        setns(fd)
    root = os.stat("/")
    with open(os.open("mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=own), encoding="utf-8", errors="replace") as file:
        table = file.read()
    found = {"hostname": os.uname().nodename, "root": (root.st_dev, root.st_ino), "mountinfo": table}
    print(json.dumps(found))


def _number(path: str) -> int:
    return os.stat(path).st_ino


def _number_of(own: int, kind: str) -> int:
    return os.stat(f"ns/{kind}", dir_fd=own).st_ino
