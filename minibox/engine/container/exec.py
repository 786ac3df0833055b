"""Run a command in a running container: `exec`."""

from __future__ import annotations

import os
from functools import partial
from select import POLLIN, poll
from time import monotonic

from minibox.base.files import closing
from minibox.engine.container.lifecycle import Process
from minibox.engine.process import exec_context, steps
from minibox.engine.process.detach_keys import DETACH_KEYS, DetachKeys
from minibox.engine.process.execution import ExecFailed, Execution, Resources
from minibox.engine.process.signals import SignalForwarder
from minibox.engine.process.streams import DetachableInput, StandardDescriptors, Streams
from minibox.engine.spec.environment import environment, read_env_files
from minibox.engine.spec.host import read_file
from minibox.engine.spec.users import ABSENT, DATABASE_BYTES_MAX, resolve_user
from minibox.engine.state import events, names
from minibox.errors import ContainerNotRunning, MiniboxError, UsageError, kernel_says
from minibox.linux import capabilities
from minibox.linux.files import read_in_root
from minibox.plan.exec import Joined, compile_exec
from minibox.plan.start import Start
from minibox.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.base.home import Home
    from minibox.linux.cgroup import Cgroup
    from minibox.oci.runtime import Process as SpecProcess
    from minibox.plan.compiler import Plan

PIPE_BYTES = 1 << 16
DETACHED_SIZE = (24, 80)
HANG_UP_S = 10  # how long a command may run on after its terminal is closed, before it is killed
DRAIN_ARGV0 = "minibox-drain"  # native/init.c


@record
class Host:
    """A running container, as `Exec` needs it.

    Attributes:
        pid, pidfd: of its first process.
        exec_context: see `Launch.exec_context`; None while it is being started.
    """

    id: str
    pid: int
    pidfd: int
    exec_context: dict[str, Any] | None
    group: Cgroup


@record
class ExecOptions:
    """The options of `docker exec`, with the same names and meaning."""

    command: tuple[str, ...]
    interactive: bool = False
    tty: bool = False
    detach: bool = False
    env: tuple[str, ...] = ()
    env_file: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    privileged: bool = False
    detach_keys: str = DETACH_KEYS


def exec_(home: Home, name_or_id: str, options: ExecOptions) -> int:
    """Run a command in a container. Return its exit status, 0 if it is detached.

    Raises:
        ContainerNotFound, ContainerNotRunning
        CommandNotFound, CommandNotExecutable: the command is at fault.
        MiniboxError: the container is paused, or the command can't be started.
    """
    if not options.command:
        raise UsageError("no command to execute")
    ends = StandardDescriptors()
    try:
        with Process(home.root, name_or_id, "execute a command in") as container:
            if container.group.is_frozen():
                raise MiniboxError(f"container {name_or_id} is paused", f"minibox unpause {name_or_id}")
            execution = Exec(host_of(container), options)
            name = (
                name_or_id if names.holder(home.root, name_or_id) == container.id else names.of(home.root, container.id)
            )
            about = {"image": container.live.reference, "name": name, "execID": os.urandom(32).hex()}
            words = " ".join(options.command)
            actions = (f"exec_create: {words}", f"exec_start: {words}")
            events.note(home.runroot, events.CONTAINER, container.id, about, *actions)
            status = execution.run()
            about["exitCode"] = str(status)
            events.note(home.runroot, events.CONTAINER, container.id, about, "exec_die")
            return status
    finally:
        ends.close()


@record
class CommandOutput:
    """The result of a command.

    Attributes:
        status: its exit status; -1 if it took too long, so that it and its session were killed.
        output: the beginning of its standard output and standard error.
    """

    status: int
    output: bytes


def capture(name_or_id: str, command: tuple[str, ...], *, root: str, timeout_s: float, bytes_max: int) -> CommandOutput:
    """Run a command in a container without input, and capture its output. Raises the errors of `exec_`."""
    with Process(root, name_or_id, "execute a command in") as container:
        if container.group.is_frozen():
            raise MiniboxError(f"container {name_or_id} is paused", f"minibox unpause {name_or_id}")
        return Exec(host_of(container), ExecOptions(command)).capture(timeout_s, bytes_max)


def host_of(container: Process) -> Host:
    """The `Host` of one of minibox's own containers."""
    if container.live.damage:
        raise container.live.damage
    return Host(container.id, container.live.pid, container.pidfd, container.live.exec_context, container.group)


class Exec:
    """One exec.

    Attributes:
        owner: the process's uid and gid on the host.
    """

    def __init__(self, container: Host, options: ExecOptions) -> None:
        """Work out the process from the container's and the options.

        Raises:
            ContainerNotRunning: the container is being started.
            UsageError: an option has an invalid value.
        """
        self._container, self._options = container, options
        found = container.exec_context
        if found is None:
            raise ContainerNotRunning(f"container {container.id[:12]} is being started")
        keys = options.detach_keys if options.tty and options.interactive and not options.detach else ""
        self._detaching = DetachableInput(DetachKeys(keys)) if keys else None
        # If the user may detach, don't kill the command when minibox is killed: the hang-up of its terminal ends it.
        self._process = _process(found["Process"], options, container)
        self.owner = exec_context.owner(container.pid, self._process)
        self._joined = Joined(found["Namespaces"] & exec_context.foreign_namespaces(container.pid), owner=self.owner[0])
        group = container.group
        self._group = group
        self._start = Start(
            setgroups=found["SetGroups"],
            seccomp=b"" if options.privileged else bytes.fromhex(found["Seccomp"]),
            seccomp_flags=found["SeccompFlags"],
            denies_keys=not options.privileged and found.get("DeniesKeys", False),
            cgroups=group.labels,
            cgroup_joins=exec_context.cgroup_joins(group),
            detached=options.detach or bool(keys),
        )

    def plan(self) -> Plan:
        """The plan that `run` executes."""
        start: Start = replace(self._start, terminal=DETACHED_SIZE if self._options.tty else None)
        return compile_exec(self._process, self._joined, start)

    def run(self) -> int:
        """See `exec_`."""
        options, detaching = self._options, self._detaching
        if options.detach:
            return self._run_detached()
        terminal = None
        if options.tty:
            from minibox.engine.process.terminal import Terminal

            terminal = Terminal(options.interactive)
        streams = Streams(interactive=options.interactive, tty=options.tty, owner=self.owner, detaching=detaching)
        execution = self._execution(streams.fds, terminal.size() if terminal else None)
        try:
            with SignalForwarder() as forwarding:
                self._run(execution)
                init = execution.launched
                if terminal:
                    terminal.enter_raw()
                streams.begin(execution.pty_master)
                ended = detaching.or_ended(init.pidfd) if detaching else init.pidfd
                forwarding.wait(ended, init.send_signal, terminal, execution.pty_master, HANG_UP_S)
                if detaching and detaching.has_detached():
                    streams.abandon()
                    _drain(execution.pty_master, self._container.id)
                    execution.release()
                    return 0
                code = init.wait()
                streams.finish()
                return code if code >= 0 else 128 - code
        finally:
            execution.close()
            streams.close()
            if detaching:
                detaching.close()
            if terminal:
                terminal.restore()

    def _run_detached(self) -> int:
        """Run it without output. If it has a terminal, another process holds it and drops what is written."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        execution = self._execution((null, null, null), DETACHED_SIZE if self._options.tty else None)
        try:
            self._run(execution)
            if execution.pty_master >= 0:
                _drain(execution.pty_master, self._container.id)
            execution.release()
            return 0
        finally:
            execution.close()
            os.close(null)

    def capture(self, timeout_s: float, bytes_max: int) -> CommandOutput:
        """See `capture`."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        execution = self._execution((null, writer, writer))
        try:
            if os.geteuid() == 0:
                os.fchown(writer, *self.owner)  # so that the command can reopen /dev/stdout
            self._run(execution)
            os.close(writer)
            writer = -1
            init = execution.launched
            output, ended = _read_until_end(reader, init.pidfd, timeout_s, bytes_max)
            if not ended:
                init.kill_group()  # it leads a session, which has its children, too
            code = init.wait()
            return CommandOutput(-1 if not ended else code if code >= 0 else 128 - code, output)
        finally:
            execution.close()
            for fd in (reader, null, *((writer,) if writer >= 0 else ())):
                os.close(fd)

    def execute(self, streams: tuple[int, int, int]) -> Execution:
        """Start the command without a terminal. The caller closes the returned execution.

        Raises:
            CommandNotFound, CommandNotExecutable: the command is at fault.
            StepError: the kernel refuses.
        """
        execution = self._execution(streams)
        try:
            self._run(execution)
        except BaseException:
            execution.close()
            raise
        return execution

    def _execution(self, streams: tuple[int, int, int], terminal: tuple[int, int] | None = None) -> Execution:
        """The execution of the plan, not yet run."""
        start: Start = replace(self._start, terminal=terminal)
        return Execution(
            compile_exec(self._process, self._joined, start),
            Resources(
                streams=streams,
                group=self._group,
                joined_pidfd=self._container.pidfd,
                joined_pid=self._container.pid,
            ),
        )

    def _run(self, execution: Execution) -> None:
        try:
            steps.run(execution)
        except ExecFailed as error:
            raise self._diagnose(error, execution.plan.ops[-1].args[0]) from None

    def _diagnose(self, error: ExecFailed, paths: Any) -> MiniboxError:
        from minibox.engine.process.diagnosis import diagnose

        return diagnose(error.errno, self._process["args"][0], paths, error.root_fd, self._process["cwd"])


def _read_until_end(fd: int, pidfd: int, timeout_s: float, bytes_max: int) -> tuple[bytes, bool]:
    """Read the beginning of what a process writes to a pipe. Return it, and whether the process ended in time.

    Don't wait for the pipe's end: a process left behind may keep it open.
    """
    waiting = poll()
    for each in (fd, pidfd):
        waiting.register(each, POLLIN)
    os.set_blocking(fd, False)
    output = b""
    deadline = monotonic() + timeout_s
    while True:
        ready = [each for each, _ in waiting.poll(max(0.0, deadline - monotonic()) * 1000)]
        ended = pidfd in ready
        if ready:
            try:
                data = os.read(fd, PIPE_BYTES)
            except BlockingIOError:
                data = None
            output = (output + (data or b""))[:bytes_max]
            if data == b"" and not ended:
                waiting.unregister(fd)  # the pipe has no writer any more
        if ended or monotonic() >= deadline:
            return output, ended


def _drain(pty_master: int, container_id: str) -> None:
    """Leave a terminal to a process that keeps it open and drops what is written to it."""
    from minibox.linux.executable import INIT

    streams = ((os.POSIX_SPAWN_DUP2, pty_master, 0),)
    os.posix_spawn(INIT, (DRAIN_ARGV0, container_id[:12]), {}, file_actions=streams, setsid=True)


def _process(process: Any, options: ExecOptions, container: Host) -> SpecProcess:
    """The container's first process, changed by the options."""
    changed: Any = {**process, "args": list(options.command)}
    env = process.get("env", [])
    if options.user:
        inside = partial(read_inside, container.pid)
        before, user = str(process["user"]["uid"]), resolve_user(options.user, (), inside)
        changed["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)}
        # Drop the first process's HOME if it is that user's own; otherwise somebody set it for all processes.
        its_home = f"HOME={resolve_user(before, (), inside).home}"
        env = [entry for entry in env if entry != its_home]
    given = read_env_files(options.env_file, read_file, os.environ)
    changed["env"] = environment(env, (*given, *options.env), os.environ, hostname="", home="", tty=options.tty)
    if options.workdir:
        changed["cwd"] = options.workdir
    if options.privileged:
        every = capabilities.names_of((2 << capabilities.last_cap()) - 1)
        changed["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), every)
        changed["noNewPrivileges"] = False
    wanted: SpecProcess = changed
    return wanted


def read_inside(pid: int, path: str) -> str:
    """Read a user database (`engine.spec.users`) of a running container; return "" if it is missing.

    Raises:
        MiniboxError: it can't be read.
    """
    try:
        with closing(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            return read_in_root(root, path, DATABASE_BYTES_MAX).decode(errors="replace")
    except OSError as error:
        if error.errno in ABSENT:
            return ""
        raise MiniboxError(
            f"read {path} of the container: {kernel_says(error)}", "leave out --user, so that it isn't needed"
        ) from error
