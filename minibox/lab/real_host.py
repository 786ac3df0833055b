"""The real host, for the part of lab 12 that breaks into it. The host must be a virtual machine that nobody needs: what a
student's program does there isn't kept from it.
"""

from __future__ import annotations

import os
import signal
from fcntl import LOCK_EX, flock
from time import monotonic

from minibox.errors import MiniboxError, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from minibox.base.home import Home

CGROUPS = "/sys/fs/cgroup"
HIERARCHY = "lab12"  # of cgroup v1, without any controller: it limits nobody
KTHREADD = 2  # the parent of what the kernel starts
WAIT_S, POLL_MS = 10, 50
CPUINFO = "/proc/cpuinfo"


class RealHost:
    """The host, with a hierarchy of cgroup v1 that is there for the lab alone."""

    def __init__(self, home: Home) -> None:
        """
        Raises:
            MiniboxError: this is no virtual machine's host, or we aren't its root.
        """
        _refuse_others()
        self._lock_fd = -1
        self._known: set[int] = set()
        self._path = f"{home.root}/labs/{HIERARCHY}"

    def __enter__(self) -> RealHost:
        from minibox.linux import mount, umount

        os.makedirs(self._path, exist_ok=True)
        self._lock_fd = os.open(CGROUPS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        flock(self._lock_fd, LOCK_EX)  # one at a time: there is one hierarchy of that name
        with suppress(OSError):
            umount(self._path)  # what a check that was killed has left
        try:
            mount(HIERARCHY, self._path, "cgroup", 0, f"none,name={HIERARCHY}")
        except OSError as error:
            os.close(self._lock_fd)
            raise MiniboxError(
                f"mount a hierarchy of cgroup v1: {error}",
                "the kernel must have cgroup v1: CONFIG_CGROUPS, no cgroup_no_v1=named",
            ) from error
        self._known = _children_of_the_kernel()
        self.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        from minibox.linux import umount

        try:
            self.clear()
        finally:
            umount(self._path)
            os.rmdir(self._path)
            os.close(self._lock_fd)

    def release_agent(self) -> str:
        """Return what the kernel is to start when a group becomes empty; "" for nothing."""
        with open(f"{self._path}/release_agent", encoding="utf-8", errors="surrogateescape") as file:
            return file.read().removesuffix("\n")

    def groups(self) -> dict[str, tuple[bool, list[int]]]:
        """Return the groups: whether the kernel tells when each becomes empty, and who lives there."""
        found = {}
        for parent, names, _ in os.walk(self._path):
            for path in (f"{parent}/{name}" for name in names):
                with open(f"{path}/notify_on_release") as told, open(f"{path}/cgroup.procs") as pids:
                    found[path.removeprefix(self._path)] = told.read().strip() == "1", [*map(int, pids.read().split())]
        return found

    def started(self) -> set[int]:
        """Return the pids of the living programs that the kernel has started since we came. Wait for one: it takes its time."""
        deadline = monotonic() + WAIT_S
        while True:
            found = _children_of_the_kernel() - self._known
            if found or monotonic() > deadline:
                return found
            signal.sigtimedwait((), POLL_MS / 1000)

    def clear(self) -> None:
        """Forget the release agent, end what the kernel has started, and remove the groups."""
        with open(f"{self._path}/release_agent", "w", encoding="ascii") as file:
            file.write("\n")
        for pid in _children_of_the_kernel() - self._known:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for parent, names, _ in os.walk(self._path, topdown=False):
            for name in names:
                with suppress(OSError):  # somebody of the machine still lives there; the next check clears it
                    os.rmdir(f"{parent}/{name}")


def _refuse_others() -> None:
    what = "this part of the lab breaks into the real host"
    with open(CPUINFO, encoding="ascii", errors="replace") as file:
        virtual = any("hypervisor" in line.split() for line in file if line.startswith("flags"))
    if not virtual:
        raise MiniboxError(f"{what}, and this is no virtual machine", "take one that you can throw away: docs/labs.md")
    if os.geteuid() != 0:
        raise MiniboxError(f"{what}, and so needs root", "take a virtual machine that you can throw away: docs/labs.md")
    name = ""
    with suppress(OSError), open(f"/proc/{KTHREADD}/comm", encoding="ascii", errors="replace") as file:
        name = file.read().strip()
    if name != "kthreadd":
        raise MiniboxError(f"{what}, and this is a container", "use the virtual machine itself")


def _children_of_the_kernel() -> set[int]:
    """Return the pids of the programs that the kernel itself has started; its own threads are no programs."""
    found = set()
    for entry in os.listdir("/proc"):
        with suppress(OSError):
            if entry.isdigit() and _parent(entry) == KTHREADD and os.readlink(f"/proc/{entry}/exe"):
                found.add(int(entry))
    return found


def _parent(pid: str) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[1])
