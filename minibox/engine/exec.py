"""A command in a container that runs."""

from __future__ import annotations

import marshal
import os

from minibox.engine import ids
from minibox.engine.environment import environment, read_env_files
from minibox.engine.host_facts import read_file
from minibox.engine.lifecycle import Process
from minibox.engine.signals import Forwarding
from minibox.engine.start import ExecFailed, Execution, Resources
from minibox.engine.streams import ClosedEnds, Streams
from minibox.engine.users import resolve_user
from minibox.errors import ContainerNotRunning, MiniboxError, UsageError
from minibox.linux import capabilities
from minibox.linux.files import open_in_root
from minibox.plan.compiler import NAMESPACES, Start
from minibox.plan.exec import Joined, compile_exec
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.oci.runtime import Process as SpecProcess

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


@record
class ExecOptions:
    """Options of `docker exec`, same names and meaning."""

    command: tuple[str, ...]
    interactive: bool = False
    tty: bool = False
    detach: bool = False
    env: tuple[str, ...] = ()
    env_file: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    privileged: bool = False


def exec_(name_or_id: str, options: ExecOptions, *, root: str) -> int:
    """Run a command in a container; its exit status, 0 for a detached one.

    Raises:
        ContainerNotFound, ContainerNotRunning
        CommandNotFound, CommandNotExecutable: the command is at fault.
        MiniboxError: the container is paused, or the kernel refuses.
    """
    if not options.command:
        raise UsageError("no command to execute")
    ends = ClosedEnds()
    try:
        with Process(root, name_or_id, "execute a command in") as container:
            if container.state["Status"] == "paused":
                raise MiniboxError(f"container {name_or_id} is paused", f"minibox unpause {name_or_id}")
            return _Exec(container, options).run()
    finally:
        ends.close()


class _Exec:
    """One exec."""

    def __init__(self, container: Process, options: ExecOptions) -> None:
        self._container, self._options = container, options
        try:
            process, namespaces, seccomp, flags, setgroups = marshal.loads(container.live.joinable)
        except (ValueError, EOFError, TypeError):
            raise ContainerNotRunning(f"container {container.id[:12]} is being started") from None
        self._joined = Joined(namespaces & _others(container.live.pid), options.detach)
        self._process = _process(process, options, container)
        group = container.group
        self._group = group
        self._start = Start(
            setgroups=setgroups,
            seccomp=b"" if options.privileged else seccomp,
            seccomp_flags=flags,
            cgroup=group.name if group.directories else "",
            cgroup_tasks=group.v1_directories,
        )

    def run(self) -> int:
        """See `exec_`."""
        options = self._options
        terminal = None
        if options.tty:
            from minibox.engine.terminal import Terminal

            terminal = Terminal(options.interactive)
        owner = _owner(self._container.live.pid, self._process)
        plan = compile_exec(self._process, self._joined, self._start, terminal.size() if terminal else None)
        streams = Streams(interactive=options.interactive, tty=options.tty, owner=owner)
        execution = Execution(
            plan,
            Resources(
                spec={},  # type: ignore[typeddict-item]
                streams=streams.fds,
                owner=owner,
                make_cgroup=lambda: self._group,
                write_id_maps=ids.write_id_maps,
                wire=lambda _: None,
                joined_pidfd=self._container.pidfd,
            ),
        )
        execution.cgroup = self._group
        try:
            with Forwarding() as forwarding:
                execution.run()
                init = execution.init
                assert init
                if options.detach:
                    execution.release()
                    return 0
                if terminal:
                    terminal.enter_raw()
                streams.begin(execution.pty_master)
                forwarding.wait(init.pidfd, init.send_signal, terminal, execution.pty_master)
                code = init.wait()
                assert code is not None
                streams.finish()
                return code if code >= 0 else 128 - code
        except ExecFailed as error:
            raise self._diagnose(error, plan.ops[-1].args[0]) from None
        finally:
            execution.close()
            streams.close()
            if terminal:
                terminal.restore()

    def _diagnose(self, error: ExecFailed, paths: Any) -> MiniboxError:
        from minibox.engine.diagnosis import diagnose

        try:
            return diagnose(error.errno, self._process["args"][0], paths, error.root_fd, self._process["cwd"])
        finally:
            if error.root_fd >= 0:
                os.close(error.root_fd)


def _others(pid: int) -> int:
    """clone(2) flags of the namespaces of a process that aren't ours."""
    flags = 0
    for name, flag in NAMESPACE_FILES.items():
        try:
            if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):
                flags |= flag
        except OSError:
            continue  # a kernel without that kind
    return flags


def _process(process: Any, options: ExecOptions, container: Process) -> SpecProcess:
    """The container's first process, with what the options change."""
    changed: Any = {**process, "args": list(options.command)}
    env = process.get("env", [])
    if options.user:
        user = resolve_user(options.user, (), lambda path: _read_inside(container.live.pid, path))
        changed["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)}
        env = [*(entry for entry in env if not entry.startswith("HOME=")), f"HOME={user.home}"]
    given = read_env_files(options.env_file, read_file, os.environ)
    changed["env"] = environment(env, (*given, *options.env), os.environ, hostname="", home="/", tty=options.tty)
    if options.workdir:
        changed["cwd"] = options.workdir
    if options.privileged:
        every = capabilities.names_of((2 << capabilities.last_cap()) - 1)
        changed["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), every)
        changed["noNewPrivileges"] = False
    return changed  # type: ignore[no-any-return]


def _read_inside(pid: int, path: str) -> str:
    """A file of a container that runs; "" when it has none."""
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(open_in_root(root, path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(root)


def _owner(pid: int, process: SpecProcess) -> tuple[int, int]:
    """The host's ids of the process to be."""
    user = process["user"]
    return _on_host(pid, "uid_map", user["uid"]), _on_host(pid, "gid_map", user["gid"])


def _on_host(pid: int, name: str, inside: int) -> int:
    with open(f"/proc/{pid}/{name}", encoding="ascii") as file:
        for line in file:
            first, outside, count = map(int, line.split())
            if first <= inside < first + count:
                return outside + inside - first
    return inside
