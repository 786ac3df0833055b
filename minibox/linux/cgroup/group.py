"""A container's cgroup: enter, watch, kill and remove it.

Entering takes the most time. Writing a pid to cgroup.procs takes the kernel's cgroup_threadgroup_rwsem for writing,
which
waits for an RCU grace period: 5 to 20 ms on an idle machine. Two ways avoid that lock, and a start uses both:

- v2: clone3(2) with CLONE_INTO_CGROUP and the descriptor of `Cgroup.open_v2` (70 µs).
- v1: the child itself, while it has one thread, writes "0" to the descriptors of `Cgroup.open_tasks`.
  cgroup_procs_write_start() doesn't take the lock for "only this thread" (30 µs each). The kernel checks the
  permission of whoever opened the file (cgroup1_procs_write), so this works inside a new user namespace. Do it before
  unshare(CLONE_NEWCGROUP), which makes the process's current cgroup the root.
"""

from __future__ import annotations

import os
from errno import ENODEV, ENOENT, EOPNOTSUPP
from time import monotonic, sleep

from minibox.base.files import close_descriptors
from minibox.base.lines import lines_of
from minibox.errors import MiniboxError, suppress, trying
from minibox.linux.cgroup.cgroupfs import read_file, remove_directory, subtree, write_file
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from minibox.linux.cgroup.host import CgroupHost
    from minibox.linux.cgroup.systemd import HeldScope

SIGKILL = 9
SYSTEMD_RUNS = "/run/systemd/system"  # sd_booted(3)
SYSTEMD_S = 2.0  # how long systemd may take to notice an empty scope


def check_name(name: str) -> None:
    """Check that a name is a flat cgroup of ours, because removal relies on that.

    Raises:
        ValueError: it doesn't start with "minibox-", or has a slash.
    """
    if not name.startswith("minibox-") or "/" in name or "\n" in name:
        raise ValueError(f"not a cgroup of minibox: {name!r}")


@record
class CgroupUsage:
    """What a container uses now; None for what its cgroup doesn't count.

    ``pids`` counts threads if the pids controller is on, like its limit; otherwise processes. Bytes are counted if
    the io (v1: blkio) controller is on, as for a container with an I/O limit.
    """

    memory_bytes: int | None
    memory_peak_bytes: int | None
    cpu_ns: int | None
    pids: int | None
    io_read_bytes: int | None
    io_write_bytes: int | None


class Cgroup:
    """A container's cgroup in one or more hierarchies, with or without processes.

    Attributes:
        name: the last component of its path; "minibox-" and the container's id, where minibox chooses it.
        v1: controller -> directory.
        v2: directory; "" where it has none.
        joined: a process can't be born in it: systemd moves it there.
        unit: the unit of systemd's that it is in; "" for none.
        place: where below the unit's own cgroup it is.
    """

    __slots__ = ("_scope", "joined", "name", "place", "unit", "v1", "v2")

    def __init__(
        self,
        name: str,
        v1: dict[str, str],
        v2: str,
        scope: HeldScope | None = None,
        joined: bool = False,
        unit: str = "",
        place: str = "",
    ) -> None:
        self.name = name
        self.v1 = v1
        self.v2 = v2
        self._scope = scope
        self.joined = joined
        self.unit = unit or (scope.unit if scope else "")
        self.place = place or f"/{name}"

    @property
    def v1_directories(self) -> tuple[str, ...]:
        """Its directory in each v1 hierarchy, in the order of `open_tasks`; a co-mounted one once."""
        return tuple(dict.fromkeys(self.v1.values()))

    @property
    def directories(self) -> tuple[str, ...]:
        """All its directories, v2's first; a co-mounted one once."""
        return (self.v2, *self.v1_directories) if self.v2 else self.v1_directories

    @property
    def paths(self) -> dict[str, str]:
        """Controller -> directory, v2's under "", for a state file; `of_paths` is the inverse."""
        return {**self.v1, **({"": self.v2} if self.v2 else {})}

    @property
    def labels(self) -> tuple[str, ...]:
        """The same as arguments of an operation, ``controller:directory``; `of_labels` is the inverse."""
        return tuple(f"{controller}:{path}" for controller, path in self.paths.items())

    def open_v2(self, below: str = "") -> int:
        """Open the v2 directory, or one ``below``, for clone3's CLONE_INTO_CGROUP; -1 if that doesn't work here.

        The caller closes the descriptor.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return os.open(f"{self.v2}{below}", flags) if self.v2 and not self.joined else -1

    def below(self, pid: int) -> str:
        """Return where in its v2 cgroup a process is: "", or "/" and the path of a cgroup in it.

        An init system moves itself to a cgroup below, and enables controllers there. From then on no process can be
        in the one above (cgroup-v2.rst, "No Internal Process Constraint"), so a process that joins must go below,
        too.
        """
        for directory, names in subtree(self.v2) if self.v2 else ():
            try:
                pids = read_file(f"{directory}/cgroup.procs").split()
            except OSError as error:
                if error.errno != EOPNOTSUPP:
                    raise
                continue  # it contains only threads
            if str(pid) in pids:
                return "".join(f"/{name}" for name in names)
        return ""

    def open_tasks(self) -> list[int]:
        """Open the v1 `tasks` files, to which a child with one thread writes "0" to enter. The caller closes them."""
        fds: list[int] = []
        try:
            for directory in self.v1_directories:
                fds.append(os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            close_descriptors(*fds)
            raise
        return fds

    def attach(self, pid: int) -> None:
        """Move the process ``pid`` with all its threads into the cgroup; this takes 5 to 20 ms (see above).

        Raises:
            MiniboxError: the kernel refused.
        """
        for directory in self.directories:
            with trying(MiniboxError, f"move process {pid} to cgroup {directory}"):
                write_file(f"{directory}/cgroup.procs", str(pid))

    def hand_over(self) -> None:
        """Make the cgroup survive the end of this process, for a detached container.

        Raises:
            MiniboxError: systemd, which made it, refused.
        """
        if self._scope:
            self._scope.hand_over()

    def pids(self) -> set[int]:
        """Return the processes in it and below it, in all hierarchies."""
        found: set[int] = set()
        for directory in self.directories:
            for below, _ in subtree(directory):
                found.update(map(int, read_file(f"{below}/cgroup.procs").split()))
        found.discard(0)  # on v1, a process outside of our pid namespace shows up as 0
        return found

    def oom_kills(self) -> int:
        """Return how many of its processes the out-of-memory killer has killed so far."""
        if "memory" in self.v1:  # doesn't include cgroups that the container made below, so add them
            return sum(_field(f"{below}/memory.oom_control", "oom_kill") for below, _ in subtree(self.v1["memory"]))
        return _field(f"{self.v2}/memory.events", "oom_kill") if self.v2 else 0

    def usage(self) -> CgroupUsage:
        """Return what it uses now, for `stats`."""
        memory = self.v1.get("memory")
        now = f"{memory}/memory.usage_in_bytes" if memory else f"{self.v2}/memory.current"
        count = _number(f"{self.v1.get('pids', self.v2)}/pids.current")
        if count is None and self.directories:
            count = len(self.pids())
        return CgroupUsage(_number(now), self.memory_peak_bytes(), self.cpu_ns(), count, *self._io_bytes())

    def memory_peak_bytes(self) -> int | None:
        """Return its peak memory; None if that isn't counted, as on v2 before Linux 5.19."""
        memory = self.v1.get("memory")
        return _number(f"{memory}/memory.max_usage_in_bytes" if memory else f"{self.v2}/memory.peak")

    def cpu_ns(self) -> int | None:
        """Return the CPU time that it has used; None if that isn't counted."""
        if "cpuacct" in self.v1:
            return _number(f"{self.v1['cpuacct']}/cpuacct.usage")
        return _field(f"{self.v2}/cpu.stat", "usage_usec") * 1000 if self.v2 else None

    def _io_bytes(self) -> tuple[int | None, int | None]:
        """Return the bytes read and written on all devices together."""
        if "blkio" in self.v1:
            text = read_file(f"{self.v1['blkio']}/blkio.throttle.io_service_bytes_recursive")
            words = text.replace("Read ", "rbytes=").replace("Write ", "wbytes=").split()
        elif self.v2 and os.path.exists(f"{self.v2}/io.stat"):
            words = read_file(f"{self.v2}/io.stat").split()
        else:
            return None, None
        read, written = (
            sum(int(word[len(key) :]) for word in words if word.startswith(key)) for key in ("rbytes=", "wbytes=")
        )
        return read, written

    def freeze(self, timeout_s: float = 5.0) -> None:
        """Freeze all its processes, and wait until they are frozen.

        Raises:
            MiniboxError: there is no freezer here, or it took longer than ``timeout_s``.
        """
        deadline = monotonic() + timeout_s
        if self.v2:
            write_file(f"{self.v2}/cgroup.freeze", "1")
            while not _field(f"{self.v2}/cgroup.events", "frozen"):
                self._doze(deadline, "freeze")
        elif "freezer" in self.v1:
            state = f"{self.v1['freezer']}/freezer.state"
            write_file(state, "FROZEN")
            while read_file(state).strip() != "FROZEN":
                self._doze(deadline, "freeze")
                write_file(state, "FROZEN")  # freezer-subsystem.rst: FREEZING may need another try
        else:
            raise MiniboxError(f"freeze cgroup {self.name}: neither cgroup v2 nor a freezer", "see minibox doctor")

    def is_frozen(self) -> bool:
        """Tell whether it is frozen or about to be, by itself or with a cgroup above, in any hierarchy."""
        if self.v2 and read_file(f"{self.v2}/cgroup.freeze").strip() == "1":
            return True
        if self.v2 and _field(f"{self.v2}/cgroup.events", "frozen"):
            return True
        return "freezer" in self.v1 and read_file(f"{self.v1['freezer']}/freezer.state").startswith("FR")

    def nearest(self) -> Cgroup:
        """Return the cgroup as far as it exists: in each hierarchy itself, or the nearest existing one above."""
        v1 = {controller: _nearest(directory) for controller, directory in self.v1.items()}
        return Cgroup(self.name, v1, _nearest(self.v2))

    def thaw(self, *, below: bool = False) -> None:
        """Thaw all its processes. It is no error if it is being removed.

        Args:
            below: also thaw cgroups below, which the container may have frozen itself.
        """
        places = [(self.v2, "cgroup.freeze", "0"), (self.v1.get("freezer", ""), "freezer.state", "THAWED")]
        for top, file, value in places:
            for directory, _ in (subtree(top) if below else ((top, []),)) if top else ():
                try:
                    write_file(f"{directory}/{file}", value)
                except OSError as error:
                    if error.errno not in (ENOENT, ENODEV):
                        raise

    def kill(self, timeout_s: float = 5.0) -> None:
        """Kill all processes in it and below, also a fork bomb's and frozen ones, and wait until none is left.

        Raises:
            MiniboxError: some are still alive after ``timeout_s`` (they hang in the kernel).
        """
        begin = monotonic()
        whole = self._kill_v2()
        while pids := self.pids():
            # A process that is only in a v1 hierarchy, because a move stopped half way, survives cgroup.kill.
            if not whole or monotonic() > begin + 0.1:
                self._kill_each(pids)
            self.thaw(below=True)  # on v1, frozen processes don't die
            self._leave_frozen(pids)
            self._doze(begin + timeout_s, "kill")

    def signal(self, number: int) -> None:
        """Send a signal to all its processes, also those forked meanwhile. Frozen ones get it when they are thawed.

        Raises:
            OSError: we may not send it.
        """
        was_frozen, sent = self.is_frozen(), set[int]()
        if can_freeze := bool(self.v2) or "freezer" in self.v1:
            self.freeze()
        try:
            while missing := self.pids() - sent:
                for pid in missing:
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
                sent |= missing
        finally:
            if can_freeze and not was_frozen:
                self.thaw()

    def _kill_v2(self) -> bool:
        """Use cgroup.kill (Linux 5.14), which no process escapes by forking. False if the kernel lacks it."""
        try:
            write_file(f"{self.v2}/cgroup.kill", "1")
        except OSError:
            return False
        return True

    def _kill_each(self, pids: set[int]) -> None:
        """Freeze, so that nothing forks and no pid is reused, and then kill. The caller thaws."""
        if self.v2 or "freezer" in self.v1:
            with suppress(MiniboxError, OSError):  # some hang in the kernel: kill the others
                self.freeze(0.2)
            pids = self.pids()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, SIGKILL)

    def _leave_frozen(self, pids: set[int]) -> None:
        """Move killed processes out of a v1 freezer that is frozen by one above, which we may not thaw: so they die."""
        top = place = self.v1.get("freezer", "")
        while place and read_file(f"{place}/freezer.state").startswith("FR"):
            place = os.path.dirname(place)
        if place == top:
            return
        for pid in pids:
            with suppress(OSError):  # it has died, or we may not move it
                write_file(f"{place}/cgroup.procs", str(pid))

    def _doze(self, deadline: float, what: str) -> None:
        if monotonic() > deadline:
            pids = " ".join(map(str, sorted(self.pids())))
            raise MiniboxError(f"{what} cgroup {self.name}: processes still there: {pids}", "see /proc/PID/stack")
        sleep(0.001)

    def remove(self, timeout_s: float = 5.0) -> None:
        """Remove it from all hierarchies where it exists. If one fails, still remove it from the others.

        A cgroup stays busy for a moment after its last process was reaped, so we retry on EBUSY.

        Raises:
            MiniboxError: it still has processes after ``timeout_s``.
        """
        if self.v2.endswith(".scope") and os.path.isdir(SYSTEMD_RUNS):
            _leave_to_systemd(self.v2)
        deadline = monotonic() + timeout_s
        failure: MiniboxError | None = None
        for directory in self.directories:
            try:
                remove_directory(directory, deadline)
            except MiniboxError as error:
                failure = failure or error
        if self._scope:
            self._scope.close()
        if failure:
            raise failure


def _leave_to_systemd(scope: str) -> None:
    """Wait until systemd removes an empty scope. If we removed it first, systemd would keep the unit for ever.

    If the scope isn't empty, systemd leaves it to us.
    """
    deadline = monotonic() + SYSTEMD_S
    while os.path.isdir(scope) and monotonic() < deadline:
        sleep(0.002)


def shown_hierarchies(mode: str, group: Cgroup) -> tuple[tuple[str, str, str], ...]:
    """Return what a mount of type cgroup shows in a cgroup namespace, for `plan.compiler.Start.cgroup_mounts`.

    That is the v2 hierarchy, or those of v1 in which the container has its own cgroup. In any other it would see, and
    could change, ours.
    """
    if mode == "v2":
        return (("", "cgroup2", ""),)
    seen: dict[str, list[str]] = {}
    for controller, directory in group.v1.items():
        seen.setdefault(os.path.dirname(directory), []).append(controller)
    return tuple(
        (",".join(each.removeprefix("name=") for each in names), "cgroup", ",".join(names)) for names in seen.values()
    )


def of_paths(paths: Mapping[str, str]) -> Cgroup:
    """Return the cgroup with these `Cgroup.paths`, as far as it still exists."""
    found = {controller: path for controller, path in paths.items() if os.path.isdir(path)}
    v2 = found.pop("", "")
    return Cgroup(os.path.basename(next(iter(paths.values()), "")), found, v2)


def of_labels(labels: Iterable[str]) -> Cgroup:
    """Return the cgroup with these `Cgroup.labels`, whether it exists or not."""
    v1 = {controller: path for controller, _, path in (each.partition(":") for each in labels)}
    v2 = v1.pop("", "")
    return Cgroup(os.path.basename(v2 or next(iter(v1.values()), "")), v1, v2)


def find(host: CgroupHost, name: str) -> Cgroup:
    """Find the cgroup ``name`` as far as it exists, whether we or systemd made it."""
    check_name(name)
    v1 = {controller: f"{parent}/{name}" for controller, parent in host.hierarchies.items()}
    v1 = {controller: path for controller, path in v1.items() if os.path.isdir(path)}
    v2 = f"{host.v2_parent}/{name}"
    if host.mode == "v2" and not (host.v2_parent and os.path.isdir(v2)):
        from minibox.linux.cgroup.scope import is_out_of_reach, scope_directory

        scope = scope_directory(f"{name}.scope", euid=os.geteuid())
        if os.path.isdir(f"{scope}/{name}"):
            from minibox.linux.cgroup.systemd import HeldScope

            return Cgroup(name, v1, f"{scope}/{name}", HeldScope(scope), is_out_of_reach(scope, os.geteuid()))
        return Cgroup(name, v1, "")
    return Cgroup(name, v1, v2 if host.v2_parent and os.path.isdir(v2) else "")


def _nearest(directory: str) -> str:
    while directory.strip("/") and not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return directory


def _number(path: str) -> int | None:
    text = read_file(path).strip()
    return int(text) if text.isdigit() else None


def _field(path: str, key: str) -> int:
    """Return the number after ``key`` in a flat keyed file; 0 if there is none."""
    for line in lines_of(read_file(path)):
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0
