"""Make a container from its bundle, until its process waits for `start` or runs. On an error nothing is left of it."""

from __future__ import annotations

import os
from errno import EBADF
from time import time_ns

from minibox.base.files import close_descriptors
from minibox.base.home import default_root
from minibox.engine.oci import cgroup, notify, state
from minibox.engine.oci.annotations import filter_of, ignored_annotations, keeps_groups
from minibox.engine.oci.bundle import read_bundle
from minibox.engine.oci.console import Receivers, check_console
from minibox.engine.oci.life import Ready
from minibox.engine.oci.state import Container
from minibox.engine.process import gate, steps
from minibox.engine.process.execution import Execution, Resources, refuse_frozen
from minibox.engine.process.undo import fields_of
from minibox.errors import ExecFailed, UsageError
from minibox.linux import launcher
from minibox.linux.capabilities import unknown
from minibox.plan import operations as op
from minibox.plan.compiler import compile_plan
from minibox.plan.mounts import ignored
from minibox.plan.namespaces import has_one_group, on_host, shares_mounts
from minibox.plan.parent import undo_list
from minibox.plan.rootfs import Rootfs
from minibox.plan.start import Start
from minibox.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.oci.runtime import Process, Spec
    from minibox.plan.compiler import Plan
    from minibox.plan.operations import Op

FIRST_PASSED = 3  # passed descriptors: those of $LISTEN_FDS, then those of --preserve-fds


@record
class CreateOptions:
    """Options for making a container, in addition to its config.json.

    Attributes:
        root: the directory of the containers' state.
        bundle: the bundle; "" for the current directory.
        note: called with warnings.
        config: a file to read instead of the bundle's config.json; "" for that.
        cgroups: make a cgroup; otherwise the container stays in the caller's.
        detach: don't wait for the container's end.
        systemd_cgroup: let systemd make the cgroup.
        rootless: go on if no cgroup can be made; None: unless run by the host's root.
        console_socket, pidfd_socket: the caller's unix sockets to send the terminal and the pidfd to; "" for none.
        pid_file: the file to write the process id to; "" for none.
        pivot: change the root with pivot_root(2).
        keyring: make a new session keyring.
        preserve_fds: the number of descriptors to pass on.
    """

    root: str
    note: Callable[[str], None]
    bundle: str = ""
    config: str = ""
    cgroups: bool = True
    detach: bool = True
    systemd_cgroup: bool = False
    rootless: bool | None = None
    console_socket: str = ""
    pidfd_socket: str = ""
    pid_file: str = ""
    pivot: bool = True
    keyring: bool = True
    preserve_fds: int = 0


def create(container_id: str, options: CreateOptions) -> None:
    """Make a container whose process waits for `life.start`.

    Raises:
        ConfigError, UsageError: the bundle, the id or the options are invalid.
        ContainerExists: the id is taken.
        CommandNotFound, CommandNotExecutable: the command can't be executed.
        MiniboxError: a step failed. Nothing is left of the container.
    """
    with Creation(container_id, options, gated=True) as creation:
        creation.execute((0, 0))
        creation.leave()


class Creation:
    """The making of one container. Leaving its ``with`` block by an error undoes everything."""

    def __init__(self, container_id: str, options: CreateOptions, *, gated: bool) -> None:
        """Take the id.

        Args:
            gated: the process waits for `life.start`.

        Raises: see `create`.
        """
        self._options, self._gated = options, gated
        state.check_id(container_id)
        self._bundle = read_bundle(options.bundle, options.config)
        self.spec: Spec = self._bundle.spec
        self.terminal = bool(self.spec["process"].get("terminal"))
        check_console(self.terminal, options.detach, options.console_socket)
        self._kept = passed_descriptors(self.spec["process"], options.preserve_fds)
        self._receivers = Receivers(options.console_socket, options.pidfd_socket, options.pid_file)
        self.container = Container.new(options.root, container_id)
        self.execution: Execution | None = None
        self.ready: Ready | None = None  # set if the container doesn't wait for `start`
        self._hook_outputs = -1, -1
        self._done = self._has_spec = False

    def __enter__(self) -> Creation:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._receivers.close()
        if kind is None and self._done:
            self.container.unlock()
        else:
            self._undo()

    def execute(self, terminal_size: tuple[int, int]) -> None:
        """Start the process, and record it.

        Args:
            terminal_size: rows and columns, if config.json has none.
        """
        options, container = self._options, self.container
        process, linux = self.spec["process"], self.spec["linux"]
        capabilities: dict[str, Any] = {**process.get("capabilities", {})}
        if lost := unknown(capabilities.values()):
            options.note(f"ignoring unknown or unavailable capabilities: [{' '.join(lost)}]")
        for mount in self.spec.get("mounts", ()):
            if words := ignored(mount):
                options.note(f"ignoring options of the bind mount on {mount['destination']}: [{' '.join(words)}]")
        if lost := ignored_annotations(self.spec):
            options.note(f"ignoring crun annotations that have no effect here: [{' '.join(lost)}]")
        if shares_mounts(self.spec) and "CAP_SYS_CHROOT" in capabilities.get("bounding", ()):
            options.note("with CAP_SYS_CHROOT the container can leave its root: its mount namespace has another root")
        rootless = state.is_rootless() if options.rootless is None else options.rootless
        if notify.host_socket(os.environ):
            notify.show(self.spec, container.directory)
        planned = cgroup.plan_group(
            self.spec,
            container.id,
            _owner(self.spec),
            by_systemd=options.systemd_cgroup,
            rootless=rootless or state.is_rootless(),
        )
        if not options.cgroups:
            planned = cgroup.no_group(planned.host)
        start = replace(
            common_start(self.spec, gated=self._gated, kept_fds=len(self._kept)),
            ordinary=os.geteuid() != 0,
            cgroup_steps=planned.steps,
            # If systemd makes it, the processes in it aren't ours to end before then.
            cgroups=() if planned.joins else planned.group.labels,
            cgroup_joins=planned.joins,
            cgroup_mounts=cgroup.shown(
                planned, own_view=any(each["type"] == "cgroup" for each in self.spec["linux"].get("namespaces", ()))
            ),
            terminal=console_size(process, terminal_size) if self.terminal else None,
            rootless=state.is_rootless(),
            keyring=options.keyring,
            pivot=options.pivot,
        )
        follows = linux.get("rootfsPropagation", "").endswith("slave")
        plan = compile_plan(self.spec, Rootfs(path=self._bundle.rootfs, follows=follows), start)
        behind = [step.name for step in plan.of(op.INIT)]
        refuse_frozen(planned.group.nearest())
        container.write(
            ociVersion=state.VERSION,
            id=container.id,
            pid=0,
            bundle=self._bundle.directory,
            rootfs=self._bundle.rootfs,
            created=_now(),
            annotations=self.spec.get("annotations", {}),
            cgroup_paths=planned.group.paths,
            systemd=options.systemd_cgroup,
            hooks=sorted(self.spec.get("hooks", {})),
            steps=behind,
            undo=fields_of(undo_list(plan.ops)),
        )
        container.write_spec(self.spec)
        self._has_spec = True
        if not self._gated:
            self.ready = Ready(container)
        self._run(plan, planned)

    def _run(self, plan: Plan, planned: cgroup.GroupPlan) -> None:
        container, process = self.container, self.spec["process"]
        files = gate.make_gate(container.directory) if self._gated else (-1, -1)
        try:
            self._hook_outputs = self._open_hook_outputs()
            self.execution = execution = Execution(
                plan,
                Resources(
                    streams=standard_streams(self.spec["process"].get("terminal", False)),
                    group=planned.group if planned.group.directories else None,
                    state=state.oci_state(container, state.CREATING),
                    noted=self._noted,
                    refuses_frozen=True,
                    hook_outputs=self._hook_outputs,
                    gate=files,
                    kept_fds=self._kept,
                ),
            )
            steps.run(execution)
        except ExecFailed as error:
            from minibox.engine.oci.command import failed_command

            raise failed_command(process, error.errno) from None
        finally:
            close_descriptors(*files, *self._hook_outputs)
        init = execution.init
        assert init
        if self._gated:
            from minibox.engine.oci.command import check_command

            check_command(process, init.pid)
        container.write(pid=init.pid, startTime=state.start_time(init.pid))

    def _open_hook_outputs(self) -> tuple[int, int]:
        """Also if this process runs all hooks: starting without a place for their output must fail."""
        if not any(self.spec.get("hooks", {}).values()):
            return -1, -1
        from minibox.engine.process.hooks import open_outputs

        return open_outputs(state.oci_state(self.container, state.CREATING))

    def _noted(self, step: Op) -> None:
        """Record the mount of its root if it shares its mount namespace."""
        rootfs, path, dev, ino, mount = step.args
        shared = {"path": path or "", "dev": dev, "ino": ino, "mount": mount}
        undone = [*self.container.fields["undo"], *fields_of([step])]
        self.container.write(**{state.SHARED_ROOT: shared, "undo": undone})

    def leave(self) -> None:
        """Hand the process over to the caller."""
        execution = self.execution
        assert execution
        self._receivers.hand_over(execution)
        self._done = True
        if self._options.detach:
            execution.release()
            launcher.end_all()  # the process's parent; the next in line will learn how it ends
            self.execution = None

    def _undo(self) -> None:
        """Remove the process, the cgroup and the state."""
        try:
            if self.execution and (failure := steps.unwind(self.execution)):
                self._options.note(str(failure))
            if self._has_spec:
                from minibox.engine.oci.life import stopped

                stopped(self.container, self.spec, self._options.note)
        finally:
            self.container.remove()


def passed_descriptors(process: Process, preserve: int) -> tuple[int, ...]:
    """Return the descriptors of systemd's socket activation, and ``preserve`` more; tell the process; sd_listen_fds(3).

    Raises:
        UsageError: one of them isn't open.
    """
    listening = 0
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "").isdecimal():
        listening = int(os.environ["LISTEN_FDS"])
    if preserve < 0:
        raise UsageError(f"--preserve-fds {preserve} is less than 0")
    found = tuple(range(FIRST_PASSED, FIRST_PASSED + listening + preserve))
    for fd in found:
        try:
            os.fstat(fd)
        except OSError:
            raise UsageError(f"can't pass on descriptor {fd} (of {len(found)}): it is not open") from None
    if listening:
        env = [word for word in process.get("env", []) if not word.startswith(("LISTEN_FDS=", "LISTEN_PID="))]
        process["env"] = [*env, f"LISTEN_FDS={listening}", "LISTEN_PID=1"]
    return found


def standard_streams(terminal: bool) -> tuple[int, int, int]:
    """Return our standard streams, with /dev/null for closed ones; none with a ``terminal``.

    While the process waits for its start it would hold them open, and containerd's shim reads ours until they are
    closed.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError as error:
            if error.errno != EBADF:
                raise
            os.open("/dev/null", os.O_RDWR)  # gets the lowest free number, which is the closed one
    return (-1, -1, -1) if terminal else (0, 1, 2)


def listener_of(spec: Spec) -> tuple[str, str | None] | None:
    """Return the socket that gets the filter's listener, and the metadata to send; None for no listener."""
    seccomp = spec["linux"].get("seccomp")
    path = seccomp.get("listenerPath") if seccomp else None
    return (path, seccomp.get("listenerMetadata")) if seccomp and path else None


def common_start(spec: Spec, *, gated: bool, kept_fds: int, pid: int = 0) -> Start:
    """Return what a container's first process and one that joins it have in common.

    Args:
        pid: of the process to join; 0 for the first one.
    """
    seccomp, seccomp_flags = filter_of(spec, default_root(os.environ, int(state.is_rootless())))
    return Start(
        setgroups=_may_set_groups(spec, pid) and not keeps_groups(spec),
        seccomp=seccomp,
        seccomp_flags=seccomp_flags,
        listener=listener_of(spec),
        detached=True,
        gate=gated,
        kept_fds=kept_fds,
    )


def _may_set_groups(spec: Spec, pid: int) -> bool:
    """Return whether setgroups(2) works: it doesn't if an ordinary user has mapped only the own group."""
    if not pid and os.geteuid() and spec["linux"].get("gidMappings") and has_one_group(spec):
        return False
    try:
        with open(f"/proc/{pid or 'self'}/setgroups", "rb", 0) as file:
            return file.read().strip() != b"deny"
    except OSError:
        return True


def _owner(spec: Spec) -> int:
    """Return the host's id of the container's process."""
    return on_host(spec["process"]["user"]["uid"], spec["linux"].get("uidMappings", ()))


def console_size(process: Process, otherwise: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of a process's terminal, if config.json has them."""
    box = process.get("consoleSize")
    return (box["height"], box["width"]) if box else otherwise


def _now() -> str:
    """Return the time in RFC 3339 with nanoseconds, without trailing zeros, as Go writes it."""
    from time import gmtime, strftime

    seconds, nanoseconds = divmod(time_ns(), 10**9)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(seconds))}.{nanoseconds:09}".rstrip("0").rstrip(".") + "Z"
