"""Run a command in a running container: `exec`."""

from __future__ import annotations

import os
from select import POLLIN, poll
from time import monotonic

from minibox.base.files import close_descriptors, closing, content_of
from minibox.engine.container.lifecycle import Process
from minibox.engine.process.exec import Exec
from minibox.engine.process.foreground import Foreground
from minibox.engine.process.streams import DetachableInput, StandardDescriptors
from minibox.engine.spec.environment import environment, read_env_files
from minibox.engine.spec.users import ABSENT, DATABASE_BYTES_MAX, resolve_user
from minibox.engine.state import events, names
from minibox.errors import ContainerNotRunning, MiniboxError, UsageError, kernel_says
from minibox.linux import capabilities
from minibox.linux.files import read_in_root
from minibox.linux.process import status_of
from minibox.plan.start import Start
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.base.home import Home
    from minibox.docker_words.pairs import Variable
    from minibox.engine.process.detach_keys import DetachKeys
    from minibox.linux.cgroup import Cgroup
    from minibox.oci.runtime import Process as SpecProcess

PIPE_BYTES = 1 << 16
DETACHED_SIZE = (24, 80)
HANG_UP_S = 10  # how long a command may run on after its terminal is closed, before it is killed
DRAIN_ARGV0 = "minibox-drain"  # native/init.c


@record
class Host:
    """A running container, as `exec_of` needs it.

    Attributes:
        pid, pidfd: of its first process.
        exec_context: see `Run.exec_context`; None while it is being started.
    """

    id: str
    pid: int
    pidfd: int
    exec_context: dict[str, Any] | None
    group: Cgroup


@record
class ExecOptions:
    """The options of `docker exec`, with the same names and meaning. None for ``detach_keys``: `DETACH_KEYS`."""

    command: tuple[str, ...]
    interactive: bool = False
    tty: bool = False
    detach: bool = False
    env: tuple[Variable, ...] = ()
    env_file: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    privileged: bool = False
    detach_keys: str | None = None


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
            container.refuse_paused(name_or_id)
            keys = _keys(options)
            command = exec_of(host_of(container), options)
            name = (
                name_or_id if names.holder(home.root, name_or_id) == container.id else names.of(home.root, container.id)
            )
            about = {"image": container.live.reference, "name": name, "execID": os.urandom(32).hex()}
            words = " ".join(options.command)
            actions = (f"exec_create: {words}", f"exec_start: {words}")
            events.note(home.runroot, events.CONTAINER, container.id, about, *actions)
            if options.detach:
                status = _run_detached(command, container.id, options.tty)
            else:
                status = _run(command, container.id, options, keys)
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
        container.refuse_paused(name_or_id)
        return _capture(exec_of(host_of(container), ExecOptions(command)), timeout_s, bytes_max)


def host_of(container: Process) -> Host:
    """The `Host` of one of minibox's own containers."""
    if container.live.damage:
        raise container.live.damage
    return Host(container.id, container.live.pid, container.pidfd, container.live.exec_context, container.group)


def exec_of(container: Host, options: ExecOptions) -> Exec:
    """Work out the process from the container's and the options.

    Raises:
        ContainerNotRunning: the container is being started.
        UsageError: an option has an invalid value.
    """
    found = container.exec_context
    if found is None:
        raise ContainerNotRunning(f"container {container.id[:12]} is being started")
    start = Start(
        setgroups=found["SetGroups"],
        seccomp=b"" if options.privileged else bytes.fromhex(found["Seccomp"]),
        seccomp_flags=found["SeccompFlags"],
        denies_keys=not options.privileged and found.get("DeniesKeys", False),
        # If the user may detach, don't kill it when minibox is killed: the hang-up of its terminal ends it.
        detached=options.detach or _may_detach(options),
    )
    process = _process(found["Process"], options, container)
    return Exec((container.pid, container.pidfd), process, container.group, start, namespaces=found["Namespaces"])


def _may_detach(options: ExecOptions) -> bool:
    return options.tty and options.interactive and not options.detach and options.detach_keys != ""


def _keys(options: ExecOptions) -> DetachKeys | None:
    if not _may_detach(options):
        return None
    from minibox.engine.process.detach_keys import DETACH_KEYS, DetachKeys

    return DetachKeys(options.detach_keys or DETACH_KEYS)


def _run(command: Exec, container_id: str, options: ExecOptions, keys: DetachKeys | None) -> int:
    detaching = DetachableInput(keys) if keys else None
    with Foreground(tty=options.tty, interactive=options.interactive, detaching=detaching) as foreground:
        streams = foreground.open_streams(command.owner)
        with foreground.signals, command.start(streams, foreground.size) as execution:
            foreground.begin(execution)
            code = foreground.follow(execution, HANG_UP_S)
            if foreground.detached:
                _drain(execution.pty_master, container_id)
                execution.release()
            return status_of(code)


def _run_detached(command: Exec, container_id: str, tty: bool) -> int:
    """Run it without output. If it has a terminal, another process holds it and drops what is written."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        with command.start((null, null, null), DETACHED_SIZE if tty else None) as execution:
            if execution.pty_master >= 0:
                _drain(execution.pty_master, container_id)
            execution.release()
            return 0
    finally:
        os.close(null)


def _capture(command: Exec, timeout_s: float, bytes_max: int) -> CommandOutput:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.geteuid() == 0:
            os.fchown(writer, *command.owner)  # so that the command can reopen /dev/stdout
        with command.start((null, writer, writer)) as execution:
            os.close(writer)
            writer = -1
            init = execution.launched
            output, ended = _read_until_end(reader, init.pidfd, timeout_s, bytes_max)
            if not ended:
                init.kill_group()  # it leads a session, which has its children, too
            code = init.wait()
            return CommandOutput(status_of(code) if ended else -1, output)
    finally:
        close_descriptors(reader, null, writer)


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

        def inside(path: str) -> str:
            return read_inside(container.pid, path)

        before, user = str(process["user"]["uid"]), resolve_user(options.user, (), inside)
        changed["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)}
        # Drop the first process's HOME if it is that user's own; otherwise somebody set it for all processes.
        its_home = f"HOME={resolve_user(before, (), inside).home}"
        env = [entry for entry in env if entry != its_home]
    given = read_env_files(options.env_file, content_of, os.environ)
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
