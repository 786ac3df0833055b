"""Control groups for lessons: a directory in /sys/fs/cgroup with limits, on v1 and v2."""

from __future__ import annotations

import os
from errno import EACCES, EBUSY, EINVAL, ENOENT, EPERM, EROFS

from minibox.base.lines import lines_of
from minibox.linux.calls.failure import failure

LAB_CGROUPS = 8
ROOT = "/sys/fs/cgroup"
PERIOD_US = 100_000
CONTROLLERS = ("memory", "pids", "cpu")


class ControlGroup:
    """A control group below the topmost one that you see: cgroups(7). ::

        group = ControlGroup("small", memory_bytes=32 << 20, processes=10, cpus=0.2)
        group.enter()  # this process, and the children that come after

    On cgroup v2 it is one directory, on v1 one for each controller.

    Attributes:
        name: of its directory.
        paths: the directory of each of the controllers memory, pids and cpu.
    """

    def __init__(
        self, name: str, *, memory_bytes: int | None = None, processes: int | None = None, cpus: float | None = None
    ) -> None:
        """Make it, or take it if it is there, and set its limits.

        Args:
            memory_bytes: its processes are killed beyond that (v2 memory.max, v1 memory.limit_in_bytes).
            processes: fork(2) fails with EAGAIN beyond that (pids.max).
            cpus: the share of processor time, 0.5 for half a processor (v2 cpu.max, v1 cpu.cfs_quota_us).

        Raises:
            PermissionError: EACCES, EPERM: the group above belongs to somebody else, who must give it to you (delegation).
            OSError: EROFS: /sys/fs/cgroup is read-only, as in most containers. EBUSY: on v2 a group with limits for its children
                can't have processes of its own. ENOENT: on v2 the controller isn't in cgroup.subtree_control above.
            ValueError: the name is no name of a directory.
        """
        if not name or "/" in name or name in (".", ".."):
            raise ValueError(f"ControlGroup: {name!r} is no name of a directory")
        self.name = name
        self.is_v2 = os.path.exists(f"{ROOT}/cgroup.controllers")
        self.paths = {each: f"{ROOT}/{name}" if self.is_v2 else f"{ROOT}/{each}/{name}" for each in CONTROLLERS}
        for path in dict.fromkeys(self.paths.values()):
            try:
                os.mkdir(path)
            except FileExistsError:
                continue
            except OSError as error:
                raise _failed("mkdir", f"make the cgroup {path}", error) from None
        if memory_bytes is not None:
            self.write("memory", "memory.max" if self.is_v2 else "memory.limit_in_bytes", memory_bytes)
        if processes is not None:
            self.write("pids", "pids.max", processes)
        if cpus is not None and self.is_v2:
            self.write("cpu", "cpu.max", f"{int(cpus * PERIOD_US)} {PERIOD_US}")
        elif cpus is not None:
            self.write("cpu", "cpu.cfs_period_us", PERIOD_US)
            self.write("cpu", "cpu.cfs_quota_us", int(cpus * PERIOD_US))

    def write(self, controller: str, file: str, value: object) -> None:
        """Write a file of one of its directories. Raises the errors of the constructor."""
        path = f"{self.paths[controller]}/{file}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, str(value).encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise _failed("write", f"write {value} to {path}", error) from None

    def read(self, controller: str, file: str) -> str:
        """Return the content of a file of one of its directories."""
        with open(f"{self.paths[controller]}/{file}", encoding="ascii") as opened:
            return opened.read()

    def enter(self, pid: int = 0) -> None:
        """Move a process into it, this one by default. Its children are born there. Raises the errors of the constructor."""
        for controller in CONTROLLERS[:1] if self.is_v2 else CONTROLLERS:
            self.write(controller, "cgroup.procs", pid or os.getpid())

    def oom_kills(self) -> int:
        """Return how many of its processes the kernel has killed for lack of memory."""
        text = self.read("memory", "memory.events" if self.is_v2 else "memory.oom_control")
        return next((int(line.split()[1]) for line in lines_of(text) if line.startswith("oom_kill ")), 0)

    def remove(self) -> None:
        """Remove it.

        Raises:
            OSError: EBUSY: a process or another group is in it.
        """
        for path in dict.fromkeys(self.paths.values()):
            try:
                os.rmdir(path)
            except OSError as error:
                raise _failed("rmdir", f"remove the cgroup {path}", error) from None


def _failed(call: str, tried: str, error: OSError) -> OSError:
    owner = "the group above belongs to somebody else: it must be given to you (delegation), as systemd does with Delegate=yes"
    wants = {
        EACCES: owner,
        EPERM: owner,
        EROFS: "/sys/fs/cgroup is mounted read-only, as in most containers",
        EBUSY: "a process or another group is in it; on v2 a group that limits its children can't have processes of its own",
        ENOENT: "it isn't there; on v2 the controller must be in cgroup.subtree_control of the group above",
        EINVAL: "the kernel doesn't take that value",
    }
    return failure(call, tried, error.errno or 0, wants, LAB_CGROUPS)
