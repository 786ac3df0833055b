"""One run of a container that is a child of this process, from its claim to its end. It ends when this process does."""

from __future__ import annotations

from time import time

from minibox.engine.container import removal
from minibox.engine.container.launch import IdFile
from minibox.engine.files import rootfs_setup
from minibox.engine.process.usage import Measurement, measure, with_oom_end
from minibox.engine.state import containers
from minibox.engine.verdict.end_kinds import WALL_TIME
from minibox.errors import CommandNotExecutable, CommandNotFound, suppress
from minibox.linux import launcher
from minibox.linux.process import SIGKILL
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minibox.engine.container.launch import Later, Launch, Trace
    from minibox.engine.process.execution import Execution
    from minibox.engine.spec.options import RunOptions


class ForegroundRun:
    """One run. Always call `close` at the end.

    Attributes:
        keep: keep the container's files after its end, for `commit` and `start`.
        began: when it began, in seconds since the epoch.
        measured: what it had used at the last call of `measure`.
        ended_for: the limit for which it was killed; see `cause.Facts`.
    """

    def __init__(self, launch: Launch, *, new: bool = True) -> None:
        """
        Args:
            new: it has no root file system yet.
        """
        self.launch = launch
        self._new = new
        self._once = False
        self.keep = not new
        self.began = time()
        self.measured = Measurement()
        self.ended_for = ""
        self.crowded = False

    def prepare(self, terminal: tuple[int, int] | None = None, *, late: bool = False) -> None:
        """See `Launch.prepare`."""
        self._once = self.launch.options.rm
        with suppress(OSError):  # `execute` raises the error
            launcher.make_ready()  # it starts meanwhile
        self.launch.prepare(terminal, new=self._new, once=self._once, late=late)

    def execute(self, streams: tuple[int, int, int], on_trace: Trace | None = None) -> Execution:
        """Start the command; see `Launch.execute`. Call `note_running` afterwards."""
        launch, options = self.launch, self.launch.options
        with IdFile(options.cidfile, launch.claim.id):
            try:
                execution = launch.execute(streams, on_trace)
                # Before anybody can see its output.
                launch.emit(*(("create", "start") if self._new else ("start",)))
                self.keep = self.keep or not options.rm
                return execution
            except (CommandNotFound, CommandNotExecutable) as error:
                self.keep = self.keep or not options.rm
                if self.keep:
                    failed = {"ExitCode": error.status, "Error": str(error), "Hint": error.hint}
                    self._write_state(durable=True, Status="created", **failed)
                if self._new and self.keep:
                    launch.emit("create")
                raise

    def note_running(self) -> None:
        """Write down that it runs."""
        launch, execution = self.launch, self.launch.execution
        assert execution and execution.init
        init = execution.init
        launch.claim.note_process(init.pid, launch.prepared.spec["process"]["args"], launch.exec_context())
        removal.collect_some(launch.home)
        if self.keep:
            self._write_state(Status="running", Pid=init.pid)

    def keep_files(self) -> None:
        """Keep its files after its end."""
        execution = self.launch.execution
        if not self.keep and execution and execution.init:
            self.keep = True
            options: RunOptions = replace(self.launch.options, rm=False)
            self.launch.options = options  # its next start must keep them, too
            self._write_state(Status="running", Pid=execution.init.pid)

    def measure(self, *, thoroughly: bool = False, ended: bool = False) -> None:
        """Measure what it has used, while its cgroup exists; see `measure`.

        Args:
            ended: its first process has ended.
        """
        if self.launch.execution:
            thoroughly = thoroughly or bool(self.launch.options.pids_limit)
            self.measured = measure(self.launch.execution, thoroughly=thoroughly)
            init = self.launch.execution.init
            if ended and init and self.measured.oom_kills:
                options = {"init": self.launch.options.init}
                self.measured = with_oom_end(self.measured, init.pid, time() - self.began, options)

    @property
    def oom_killed(self) -> bool:
        """Did the kernel kill one of its processes because memory ran out?"""
        return self.measured.oom_kills > 0

    def kill(self, limit: str) -> None:
        """Kill it because it has reached a limit. If this is called twice, the first limit counts."""
        execution = self.launch.execution
        if execution and execution.init:
            if not self.ended_for:
                from minibox.linux.cgroup.usage_meter import tally

                self.crowded = execution.cgroup is not None and tally(execution.cgroup).crowded
                self.ended_for = limit
            execution.init.send_signal(SIGKILL)

    def note_end(self, code: int, status: int, *, relayed: int, forwarded: Sequence[int] = ()) -> None:
        """Write down how it ended. Call `measure` before.

        Args:
            code: of its first process, as returned by `Child.wait`.
            relayed: see `LaunchedChild.relayed`.
            status: the exit status to write down.
        """
        launch = self.launch
        launch.claim.note_ended(status)
        if self.keep:
            fields = {
                **self.measured.record(),
                "ExitCode": status,
                "Signal": max(0, -code),
                "Relayed": relayed,
                "EndedFor": self.ended_for,
                "Crowded": self.crowded,
                "TimedOut": self.ended_for == WALL_TIME,
                "Forwarded": list(forwarded),
                "Finished": time(),
            }
            # Change the state, since it may have been renamed meanwhile.
            ended = {"Pid": 0, "Status": "exited"}
            containers.change(
                launch.home.root, launch.claim.id, lambda found: {**found, **fields, **ended}, durable=True
            )
        ends = ("oom", "die") if self.oom_killed else ("die",)
        launch.emit(*ends, *(() if self.keep else ("destroy",)), exitCode=str(status))

    def _write_state(self, *, durable: bool = False, **fields: object) -> None:
        fresh = {**self.launch.record(), "Created": self.began, "Started": self.began, **fields}
        containers.write(self.launch.home.root, fresh, durable=durable)

    def after_fork(self) -> None:
        """Let go of the container in the child after a fork: the parent owns it."""
        self.launch.after_fork()

    def close(self, later: Later | None = None) -> None:
        """Clean up after it, and remove its files unless ``keep`` is set. ``later`` is as in `Launch.close`."""
        if self.keep and self._once:
            self.launch.end_processes()
            rootfs_setup.make_lasting(self.launch.home.root, self.launch.claim.id)
        self.launch.close(keep=self.keep, later=later)
