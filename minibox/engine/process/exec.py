"""A further process for a running container: what it joins, its Plan and its execution. All fronts of `exec` use it."""

from __future__ import annotations

import os

from minibox.engine.host import ids
from minibox.engine.process import steps
from minibox.engine.process.execution import Execution, Resources
from minibox.errors import ExecFailed
from minibox.plan.exec import Joined, compile_exec
from minibox.plan.namespaces import NAMESPACES, on_host
from minibox.plan.parent import systemd_attach
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.errors import MiniboxError
    from minibox.linux.cgroup import Cgroup
    from minibox.oci.runtime import Process
    from minibox.plan.compiler import Plan
    from minibox.plan.start import Start

NAMESPACE_FILES = {
    "user": NAMESPACES["user"],
    "mnt": NAMESPACES["mount"],
    "uts": NAMESPACES["uts"],
    "ipc": NAMESPACES["ipc"],
    "pid": NAMESPACES["pid"],
    "net": NAMESPACES["network"],
    "cgroup": NAMESPACES["cgroup"],
    "time": NAMESPACES["time"],
}


class Exec:
    """A process to be started in a running container.

    Attributes:
        process: what is to be executed.
        owner: its uid and gid on the host.
    """

    def __init__(
        self,
        first: tuple[int, int],
        process: Process,
        group: Cgroup,
        start: Start,
        *,
        namespaces: int = -1,
        root_fd: int = -1,
        follows_first: bool = True,
        failed: Callable[[ExecFailed, Process], MiniboxError] | None = None,
    ) -> None:
        """
        Args:
            first: pid and pidfd of the container's first process.
            group: the cgroup that it enters.
            start: the filter, the lifetime and the like; the cgroup and the terminal are added here.
            namespaces: clone(2) flags of those that it joins, if they aren't ours.
            root_fd: the container's root, if that isn't the root of its mount namespace.
            follows_first: if no process can be added to ``group``, enter the cgroup of the first process.
            failed: makes the error for a command that can't be executed; None: `diagnosis.diagnose_exec`.
        """
        self.process = process
        self._pid, self._pidfd = first
        self.owner = owner(self._pid, process)
        self._joined = Joined(foreign_namespaces(self._pid) & namespaces, chrooted=root_fd >= 0, owner=self.owner[0])
        self._group, self._root_fd, self._follows_first, self._failed = group, root_fd, follows_first, failed
        # Where no process can be created directly, systemd moves it there.
        joins = (systemd_attach(group.unit, group.place, group.v2),) if group.joined else ()
        self._start: Start = replace(start, cgroups=group.labels, cgroup_joins=joins)

    def plan(self, terminal: tuple[int, int] | None = None) -> Plan:
        """Return the plan.

        Args:
            terminal: rows and columns of its terminal; None for none.
        """
        start: Start = replace(self._start, terminal=terminal)
        return compile_exec(self.process, self._joined, start)

    def start(self, streams: tuple[int, int, int], terminal: tuple[int, int] | None = None, **more: Any) -> Execution:
        """Start it. The caller closes the returned execution.

        Args:
            more: of `Resources`.

        Raises:
            CommandNotFound, CommandNotExecutable: the command is at fault.
            MiniboxError: a step failed.
        """
        resources = Resources(
            streams=streams,
            group=self._group,
            joined_pidfd=self._pidfd,
            joined_pid=self._pid if self._follows_first else 0,
            joined_root=self._root_fd,
            **more,
        )
        execution = Execution(self.plan(terminal), resources)
        try:
            steps.run(execution)
        except ExecFailed as error:
            failed = self._error_of(error)
            execution.close()
            raise failed from None
        except BaseException:
            execution.close()
            raise
        return execution

    def _error_of(self, failed: ExecFailed) -> MiniboxError:
        if self._failed:
            return self._failed(failed, self.process)
        from minibox.engine.process.diagnosis import diagnose_exec

        return diagnose_exec(failed, self.process)


def is_ours(kind: str, path: str) -> bool:
    """Is the namespace at ``path`` the one that we are in?

    Args:
        kind: a namespace type of the OCI Spec.
    """
    name = next(name for name, flag in NAMESPACE_FILES.items() if flag == NAMESPACES[kind])
    try:
        return os.path.samefile(path, f"/proc/self/ns/{name}")
    except OSError:
        return False  # it is missing: joining it raises the error


def foreign_namespaces(pid: int) -> int:
    """The clone(2) flags of those namespaces of a process that aren't ours."""
    flags = 0
    for name, flag in NAMESPACE_FILES.items():
        try:
            if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):
                flags |= flag
        except OSError:
            continue  # this kernel doesn't have that type
    return flags


def owner(pid: int, process: Process) -> tuple[int, int]:
    """The uid and gid on the host of a new process in the user namespace of ``pid``."""
    uids, gids = ids.mapped_of(pid)
    return on_host(process["user"]["uid"], uids), on_host(process["user"]["gid"], gids)
