"""`exec`: run another process in a running container."""

from __future__ import annotations

import os

from minibox.base.files import close_descriptors
from minibox.engine.oci import state
from minibox.engine.oci.bundle import check_process, read_process
from minibox.engine.oci.command import check_command, failed_exec, failed_step
from minibox.engine.oci.console import Receivers, check_console
from minibox.engine.oci.create import common_start, console_size, passed_descriptors, standard_streams
from minibox.engine.oci.life import Process as FirstProcess
from minibox.engine.oci.state import PAUSED, STOPPED, Container
from minibox.engine.process import gate
from minibox.engine.process.exec import Exec
from minibox.engine.process.foreground import Foreground
from minibox.errors import ContainerNotRunning, MiniboxError, UsageError
from minibox.linux import launcher
from minibox.linux.capabilities import capability_name
from minibox.linux.cgroup import Cgroup
from minibox.linux.process import status_of
from minibox.plan import operations as op
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.engine.process.execution import Execution
    from minibox.oci.runtime import Process, Spec

KEPT = ("capabilities", "rlimits", "apparmorProfile", "selinuxLabel", "oomScoreAdj")
CAPABILITY_SETS = ("bounding", "effective", "permitted", "ambient")  # the sets that runc's --cap adds to


@record
class ExecOptions:
    """What to execute, and how.

    Attributes:
        process: a file with an OCI process; "": take the container's first process with the changes below.
        command, cwd, env, user, additional_gids, tty, no_new_privs, caps, apparmor, label: changes to that process.
        cgroups: its cgroup below the container's: ``path`` or ``controller:path``.
        ignore_paused: if the container is paused, wait in it.
        note: called with warnings.
        detach, console_socket, pidfd_socket, pid_file, preserve_fds: as in `create.CreateOptions`.
    """

    note: Callable[[str], None]
    process: str = ""
    command: tuple[str, ...] = ()
    cwd: str = ""
    env: tuple[str, ...] = ()
    user: str = ""
    additional_gids: tuple[str, ...] = ()
    tty: bool = False
    no_new_privs: bool = False
    caps: tuple[str, ...] = ()
    apparmor: str = ""
    label: str = ""
    cgroups: tuple[str, ...] = ()
    ignore_paused: bool = False
    detach: bool = False
    console_socket: str = ""
    pidfd_socket: str = ""
    pid_file: str = ""
    preserve_fds: int = 0


def exec_(root: str, container_id: str, options: ExecOptions) -> int:
    """Run a process in a container; return its exit status, or 0 if it is left running.

    Raises:
        ContainerNotFound, ContainerNotRunning: there is no container to run it in.
        ConfigError, UsageError: the process or the options are invalid.
        CommandNotFound, CommandNotExecutable: the command can't be executed.
        MiniboxError: the container is paused, or a step failed.
    """
    container = Container.find(root, container_id)
    status = container.status()
    if status == STOPPED:
        raise ContainerNotRunning("cannot exec in a stopped container")
    if status == PAUSED and not options.ignore_paused:
        raise MiniboxError("cannot exec in a paused container (use --ignore-paused to override)")
    spec = container.spec()
    process = requested(spec, options)
    check_console(bool(process.get("terminal")), options.detach, options.console_socket)
    with FirstProcess(container) as first:
        check_command(process, first.pid)
        return _Exec(container, spec, process, options, first).run()


def requested(spec: Spec, options: ExecOptions) -> Process:
    """Return the process that the options ask for; the rest is taken from the container's first process.

    Raises:
        ConfigError, UsageError: it is invalid.
    """
    own = spec["process"]
    if options.process:
        process = read_process(options.process)
        kept: Any = {key: value for key, value in own.items() if key in KEPT}
        merged: Process = {**kept, **process}
        return merged
    if not options.command:
        raise UsageError("process args cannot be empty")
    process = {**own, "args": list(options.command), "terminal": options.tty}
    process.pop("consoleSize", None)
    process["env"] = [*own.get("env", ()), *options.env]
    if options.cwd:
        process["cwd"] = options.cwd
    if options.no_new_privs:
        process["noNewPrivileges"] = True
    if options.apparmor:
        process["apparmorProfile"] = options.apparmor
    if options.label:
        process["selinuxLabel"] = options.label
    if options.caps:
        names = {word: capability_name(word) for word in options.caps}
        if lost := [word for word, name in names.items() if not name]:
            options.note(f"ignoring unknown or unavailable capabilities: [{' '.join(lost)}]")
        added = [name for name in names.values() if name]
        sets: Any = process.get("capabilities", {})
        for name in CAPABILITY_SETS:
            had = sets.get(name, ())
            sets = {**sets, name: [*had, *(cap for cap in added if cap not in had)]}
        process["capabilities"] = sets
    process["user"] = _user(process, options)
    check_process(process, "exec")
    return process


def _user(process: Process, options: ExecOptions) -> Any:
    user: dict[str, Any] = {**process["user"]}
    if options.user:
        uid, _, gid = options.user.partition(":")
        user["uid"] = _id(uid, "user")
        if gid:
            user["gid"] = _id(gid, "group")
    if options.additional_gids:
        more = [_id(word, "additional group") for word in options.additional_gids]
        user["additionalGids"] = [*user.get("additionalGids", ()), *more]
    return user


def _id(word: str, what: str) -> int:
    if not (word.isascii() and word.isdecimal()):
        raise UsageError(f"{what} {word!r} is not a number", "names aren't looked up in the container: use a number")
    return int(word)


class _Exec:
    """One exec."""

    def __init__(
        self, container: Container, spec: Spec, process: Process, options: ExecOptions, first: FirstProcess
    ) -> None:
        self._process, self._options, self._first = process, options, first
        self._gate = f"{container.directory}/exec.{os.getpid()}"
        self._kept = passed_descriptors(process, options.preserve_fds)
        group = below(container.group(), options.cgroups)
        if container.fields["systemd"] and os.geteuid():
            group = _by_systemd(container.group().v2, group)
        self._root_fd = -1
        if state.SHARED_ROOT in container.fields:
            self._root_fd = os.open(f"/proc/{first.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._state = state.oci_state(container)
        self._exec = Exec(
            (first.pid, first.pidfd),
            process,
            group,
            common_start(spec, gated=options.detach, kept_fds=len(self._kept), pid=first.pid),
            root_fd=self._root_fd,
            follows_first=not options.cgroups,
            failed=failed_exec,
        )

    def run(self) -> int:
        """See `exec_`."""
        options, process = self._options, self._process
        terminal = bool(process.get("terminal"))
        receivers = Receivers(options.console_socket, options.pidfd_socket, options.pid_file)
        files = (-1, -1)
        try:
            with Foreground(tty=terminal and not options.detach, interactive=True, raw=os.isatty(0)) as foreground:
                size = console_size(process, foreground.size or (0, 0)) if terminal else None
                streams = standard_streams(terminal)
                if options.detach:
                    os.mkdir(self._gate, 0o700)
                    files = gate.make_gate(self._gate)
                given: dict[str, Any] = {"state": self._state, "gate": files, "kept_fds": self._kept}
                with foreground.signals, self._exec.start(streams, size, **given) as execution:
                    execution.launched.let_go()  # it survives this process if that is killed, as under runc
                    receivers.hand_over(execution)
                    if options.detach:
                        close_descriptors(*files)
                        files = (-1, -1)
                        self._leave(execution)
                        return 0
                    foreground.begin(execution)
                    return status_of(foreground.follow(execution))
        finally:
            close_descriptors(*files, self._root_fd)
            self._remove_gate()
            receivers.close()

    def _leave(self, execution: Execution) -> None:
        """Hand the process over to the caller before it runs, so that only the caller learns how it ends."""
        names = [step.name for step in execution.plan.of(op.INIT)]
        execution.release()
        launcher.end_all()
        failed = gate.open_gate(self._gate)
        if failed:
            if self._options.pid_file:
                os.unlink(self._options.pid_file)
            raise failed_step(names, self._process, *failed)

    def _remove_gate(self) -> None:
        if os.path.isdir(self._gate):
            for name in os.listdir(self._gate):
                os.unlink(f"{self._gate}/{name}")
            os.rmdir(self._gate)


def below(group: Cgroup, places: tuple[str, ...]) -> Cgroup:
    """Return an existing cgroup below a container's, in all hierarchies or in those of some controllers.

    Raises:
        UsageError: it doesn't exist, or isn't below the container's.
    """
    v1, v2 = dict(group.v1), group.v2
    for place in places:
        names, colon, path = place.rpartition(":")
        if ".." in path.split("/"):
            raise UsageError(f"--cgroup {place}: it leads out of the container's cgroup")
        for name in names.split(",") if colon and names else (*group.v1, ""):
            directory = f"{v1[name] if name else v2}/{path.strip('/')}".rstrip("/") if name in v1 or not name else ""
            if (name or v2) and not os.path.isdir(directory):
                raise UsageError(f"--cgroup {place}: the container has no such cgroup")
            if name:
                v1[name] = directory
            elif v2:
                v2 = directory
    return Cgroup(group.name, v1, v2)


def _by_systemd(scope: str, group: Cgroup) -> Cgroup:
    """Return a cgroup in a scope of the user's systemd, which moves processes of another session there."""
    return Cgroup(
        group.name, {}, group.v2, joined=True, unit=os.path.basename(scope), place=group.v2[len(scope) :] or "/"
    )
