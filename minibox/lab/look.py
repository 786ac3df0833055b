"""What a check may look at: a lab's machine and its processes, from outside, by /proc. Nothing here believes what a
student's program says about itself.
"""

from __future__ import annotations

import os
from fcntl import ioctl

from minibox.base.lines import lines_of
from minibox.errors import MiniboxError
from minibox.lab import inside
from minibox.lab.requirement import Missing
from minibox.linux.capabilities import names_of
from minibox.linux.mount_table import unescaped
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from minibox.lab.answer import Answer
    from minibox.lab.real_host import RealHost

NS_GET_PARENT = 0xB702  # linux/nsfs.h
PROC_BYTES_MAX = 1 << 20


@record
class Mount:
    """A line of mountinfo: proc_pid_mountinfo(5).

    Attributes:
        id: the kernel's number for it.
        device: ``major:minor`` of its file system.
        root: which directory of the file system is mounted.
        point: where, as the one sees it whose table it is.
        options: of the mount: ``ro``, ``nosuid``, ...
        tags: ``shared:N``, ``master:N``, ``unbindable``.
    """

    id: int
    device: str
    root: str
    point: str
    options: tuple[str, ...]
    tags: tuple[str, ...]
    fs_type: str
    source: str
    super_options: tuple[str, ...]


class Process:
    """A process of the machine, seen from the host.

    Attributes:
        pid: its pid on the host.
        parent: the pid on the host of its parent.
        pids: its pid in each PID namespace from the host's down to its own.
        name: its name (``comm``).
        state: ``R`` running, ``S`` sleeping, ``T`` stopped, ``Z`` zombie, ...
    """

    def __init__(self, pid: int) -> None:
        """
        Raises:
            OSError: it has ended.
        """
        self.pid = pid
        fields = dict(line.split(":", 1) for line in lines_of(self.read("status")) if ":" in line)
        self.fields = {name: value.strip() for name, value in fields.items()}
        self.name, self.state = self.fields["Name"], self.fields["State"][:1]
        self.parent = int(self.fields["PPid"])
        self.pids = tuple(map(int, self.fields["NSpid"].split()))

    def __repr__(self) -> str:
        return f"{self.name} ({self.pids[-1]} inside, {self.pid} outside)"

    def read(self, name: str) -> str:
        """Read a file of its directory in /proc."""
        with open(f"/proc/{self.pid}/{name}", "rb") as file:
            return file.read(PROC_BYTES_MAX).decode(errors="surrogateescape")

    def has_ended(self) -> bool:
        try:
            return Process(self.pid).state in "ZX"
        except (OSError, KeyError):
            return True

    def namespace(self, kind: str) -> int:
        """Return the number of its namespace: ``mnt``, ``uts``, ``pid``, ``net``, ``user``, ``ipc``, ``cgroup``; 0 if it
        is in none any more.
        """
        try:
            return os.stat(f"/proc/{self.pid}/ns/{kind}").st_ino
        except OSError:
            return 0

    def capabilities(self, kind: str = "Eff") -> set[str]:
        """Return its capabilities: ``Eff``, ``Prm``, ``Inh``, ``Bnd`` or ``Amb``."""
        return set(names_of(int(self.fields[f"Cap{kind}"], 16)))

    def id_map(self, kind: str = "uid") -> list[tuple[int, int, int]]:
        """Return the map of its user namespace, as the host sees it: first id inside, first id outside, how many."""
        found: list[tuple[int, int, int]] = []
        for line in lines_of(self.read(f"{kind}_map")):
            first, outside, count = map(int, line.split())
            found.append((first, outside, count))
        return found

    def mounts(self) -> list[Mount]:
        """Return the mounts that it can reach, as it sees them."""
        return mounts_in(self.read("mountinfo"))

    def link(self, name: str) -> str:
        """Return where ``cwd``, ``root``, ``exe`` or ``fd/N`` leads; "" if there is no such link."""
        try:
            return os.readlink(f"/proc/{self.pid}/{name}")
        except OSError:
            return ""

    def place(self, name: str = "root") -> tuple[int, int]:
        """Return device and inode of its ``root`` or ``cwd``."""
        found = os.stat(f"/proc/{self.pid}/{name}/.")
        return found.st_dev, found.st_ino

    def mount_id(self, name: str) -> int:
        """Return the number of the mount that its ``root``, ``cwd`` or ``fd/N`` lies on."""
        fd = os.open(f"/proc/{self.pid}/{name}", os.O_PATH | os.O_CLOEXEC)
        try:
            with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))
        finally:
            os.close(fd)

    def descriptors(self) -> dict[int, str]:
        """Return its open descriptors, and where each leads."""
        try:
            numbers = os.listdir(f"/proc/{self.pid}/fd")
        except OSError:
            return {}
        return {int(number): self.link(f"fd/{number}") for number in numbers}

    def environment(self) -> dict[str, str]:
        """Return the environment that it was started with."""
        pairs = (pair.partition("=") for pair in self.read("environ").split("\0") if pair)
        return {name: value for name, _, value in pairs}

    def network(self) -> dict[str, Any]:
        """Return the links, addresses and routes of its network namespace; see `netlink.tables`."""
        return inside.network(self.pid)

    def within(self) -> Inside:
        """Look at its namespaces from within them, by a program of ours."""
        return Inside(inside.look(self.pid))


class Inside:
    """What a program of ours finds in a process's namespaces.

    Attributes:
        hostname: of its UTS namespace.
        root: device and inode of the root of its mount namespace, which needn't be the process's.
        mounts: all mounts of that namespace, as its root sees them.
    """

    def __init__(self, found: dict[str, Any]) -> None:
        self.hostname: str = found.get("hostname", "")
        self.root: tuple[int, ...] = tuple(found.get("root", ()))
        self.mounts = mounts_in(found.get("mountinfo", ""))


class Machine:
    """A lab's machine.

    Attributes:
        init: its first process.
        before: what was there before a student's program began; for a machine that `start` made, what it began with.
        answer: the student's program; None where the student works by hand.
        start: starts another command in the machine, with the name that a message gives it; None there, too.
        start_another: starts a command in another machine, made with other options; None there, too.
        real_host: the host, for a lab that breaks into it; else None.
    """

    def __init__(self, pid: int, before: dict[str, Any] | None = None) -> None:
        self.init = Process(pid)
        self._init_pid = pid
        self.before = before or self.facts()
        self.answer: Answer | None = None
        self.start: Callable[[list[str], str], Answer] | None = None
        self.start_another: Callable[[list[str], dict[str, Any], str], Answer] | None = None
        self.real_host: RealHost | None = None

    def facts(self) -> dict[str, Any]:
        """Describe the machine, for a comparison with what it is later."""
        within = self.init.within()
        mounts = sorted(f"{each.point} {each.fs_type} {each.root}" for each in within.mounts)
        return {"hostname": within.hostname, "mounts": mounts, "pids": sorted(each.pid for each in self.processes())}

    def host_id(self, number: int, kind: str = "uid") -> int:
        """Return the host's id for an id of the machine; -1 if it has none."""
        for first, outside, count in self.init.id_map(kind):
            if first <= number < first + count:
                return outside + number - first
        return -1

    def processes(self) -> list[Process]:
        """Return its processes, but not its init and those that were there before."""
        known = set(getattr(self, "before", {}).get("pids", ()))
        own = self.init.namespace("pid")
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != self._init_pid and int(entry) not in known:
                try:
                    if _lies_in(int(entry), own):
                        found.append(Process(int(entry)))
                except (OSError, KeyError):
                    continue  # it has ended meanwhile
        return sorted(found, key=lambda each: each.pid)

    def helper(self, name: str) -> Process:
        """Return a process that the machine's script has started, by its name."""
        for pid in self.before["pids"]:
            process = Process(pid)
            if process.name == name:
                return process
        raise Missing(f"the machine's own process {name} is gone: minibox lab reset")

    def apart(self, *kinds: str) -> Iterator[Process]:
        """Yield the living processes that are in another namespace of each of these kinds than the machine's."""
        for process in self.processes():
            if process.state != "Z" and all(self.is_apart(process, kind) for kind in kinds):
                yield process

    def is_apart(self, process: Process, kind: str) -> bool:
        number = process.namespace(kind)
        return number != 0 and number != self.init.namespace(kind)

    def path(self, path: str) -> str:
        """Return a path of the host for an absolute path of the machine. Don't follow links below it."""
        return f"/proc/{self._init_pid}/root{path}"


def looked_at(processes: Iterable[Process], look: Callable[[Process], Any]) -> dict[Process, Any]:
    """Look at each process. One that ended meanwhile is left out: a program may start others for a moment, such as `sleep 1`
    in a loop.
    """
    found = {}
    for process in processes:
        try:
            found[process] = look(process)
        except (OSError, MiniboxError):
            if not process.has_ended():
                raise
    return found


def mounts_in(text: str) -> list[Mount]:
    """Read a mount table."""
    found = []
    for line in lines_of(text):
        fields = line.split(" ")
        dash = fields.index("-", 6)
        found.append(
            Mount(
                int(fields[0]),
                fields[2],
                unescaped(fields[3]),
                unescaped(fields[4]),
                tuple(fields[5].split(",")),
                tuple(fields[6:dash]),
                fields[dash + 1],
                unescaped(fields[dash + 2]),
                tuple(fields[dash + 3].split(",")),
            )
        )
    return found


def named(processes: Iterable[Process]) -> str:
    """Name processes in a message."""
    return ", ".join(map(repr, processes)) or "none"


def _lies_in(pid: int, namespace: int) -> bool:
    """Is a process in this PID namespace, or in one below it?"""
    fd = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            if os.fstat(fd).st_ino == namespace:
                return True
            try:
                above = ioctl(fd, NS_GET_PARENT)
            except OSError:
                return False
            os.close(fd)
            fd = above
    finally:
        os.close(fd)
