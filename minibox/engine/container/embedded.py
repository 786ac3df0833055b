"""A container of a program that uses minibox as a library. It lives as long as an object of the program.

It is a foreground container without the command line: no signal handlers, no terminal, and the caller's streams. After
a fork the child has copies of the objects, but owns no container.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from functools import partial
from weakref import WeakSet

from minibox.base.program import check_umask
from minibox.engine.container.exec import Host, exec_of
from minibox.engine.container.output_log import OutputLog, last_lines, text
from minibox.engine.container.start import new_run
from minibox.engine.process.command import Command
from minibox.engine.process.output_limit import OutputLimit
from minibox.engine.process.streams import Streams
from minibox.engine.process.usage import with_oom_end
from minibox.engine.spec import plan_cache
from minibox.engine.verdict.cause import OPTIONS
from minibox.engine.verdict.end_kinds import KILLED, OUTPUT, SIGNAL, WALL_TIME
from minibox.engine.verdict.judgement import judge_end
from minibox.errors import ContainerNotRunning, MiniboxError, UsageError, suppress
from minibox.linux import cgroup
from minibox.linux.process import SIGKILL
from minibox.outcome import Usage
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from minibox.base.home import Home
    from minibox.engine.container.exec import ExecOptions
    from minibox.engine.container.run import Later, Note, Run
    from minibox.engine.container.snapshots import HeldSnapshot
    from minibox.engine.container.start import Pull
    from minibox.engine.process.time_limits import TimeLimits
    from minibox.engine.process.usage import Measurement
    from minibox.engine.spec.options import RunOptions
    from minibox.engine.verdict.cause import Facts
    from minibox.image.layout.image import ResolvedImage
    from minibox.outcome import Verdict

LINES_SHOWN, LINES_KEPT = 5, 50
NS_A_SECOND = 1e9


class Embedded:
    """One container. `close` ends it and removes it. You can call it from any thread, and twice.

    Attributes:
        compile: as in `Run`.
        main: its first process; None before `start`.
        log: the log of its first process; None if the caller takes its output.
    """

    compile = staticmethod(plan_cache.prepare)

    def __init__(
        self,
        home: Home,
        options: RunOptions,
        *,
        storage_driver: str = "",
        on_note: Note | None = None,
        pull: Pull | None = None,
        image: ResolvedImage | None = None,
    ) -> None:
        """Do nothing yet. The arguments are those of `start.run`; ``image`` is that of `start.new_run`."""
        check_umask()
        self.home, self.options = home, options
        self._new_run = partial(new_run, home, options, storage_driver, on_note, image=image)
        self._pull = pull
        self.main: Command | None = None
        self.log: OutputLog | None = None
        self._made: Run | None = None
        self._lines: tuple[str, ...] = ()
        self._host: Host | None = None
        self._commands: set[Command] = set()  # other commands that run in it
        self._lock = allocate_lock()  # held while it is started or closed
        self._closed = self._closing = self._is_parents = False
        self._sent: dict[int, int] = {}  # signal -> how often the kernel had killed for memory when we sent it
        self._timeout_s: float | None = None
        self._output_limit = None if options.output_bytes is None else OutputLimit(options.output_bytes)
        self._time_limits: TimeLimits | None = None
        self._cpu_seen_ns = 0  # used if no cgroup counts
        self._cpu_ended_ns = 0  # processor time of the commands that have ended
        self._written_bytes: int | None = None
        _open_here.add(self)

    def pull(self) -> None:
        """Pull its image now if needed, so that `start` needn't."""
        from minibox.engine.resources.registry import resolve_pulling
        from minibox.image.reference import parse_name
        from minibox.image.store import ImageStore

        resolve_pulling(ImageStore(self.home.root), parse_name(self.options.image), self.options, None)
        self._pull = lambda image, platform: None

    def start(self, outside: tuple[int, int, int], *, logged: bool = False, socket: bool = False) -> Command:
        """Claim and start the container. Call `close` afterwards, even if it fails.

        Args:
            outside: descriptors for standard input, output and error. The container gets pipes directly; anything else
                is copied, and must stay open until the container has ended.
            logged: write its output to its log instead.
            socket: its standard input is a socket, which it gets directly.

        Raises:
            CommandNotFound, CommandNotExecutable: the command is at fault.
            MiniboxError: it can't be started for another reason.
        """
        with self._lock:
            if self._closing:
                raise MiniboxError("the container was closed before it was started")
            return self._start(outside, logged, socket)

    def _start(self, outside: tuple[int, int, int], logged: bool, socket: bool) -> Command:
        run = self._made = self._new_run(self._pull)
        run.compile = self.compile
        run.prepare(child=True, late=not logged)
        if logged:
            self.log = OutputLog(self.home.root, self.id)
            outside = (outside[0], self.log.fds[0], self.log.fds[1])
        owner, output_limit = run.owner, self._output_limit
        streams = Streams(
            interactive=True, tty=False, owner=owner, outside=outside, output_limit=output_limit, socket=socket
        )
        try:
            execution = run.execute(streams.fds)
            run.note_running()
            streams.begin()
        except BaseException:
            streams.close()
            raise
        init = execution.init
        assert init
        group = execution.cgroup or cgroup.find(cgroup.detect(), f"minibox-{self.id}")
        self._host = Host(self.id, init.pid, init.pidfd, run.exec_context(), group)
        if self.log:
            self.log.close_fds()
        self.main = Command(execution, streams, self._measure_end)
        self._limit()
        return self.main

    @property
    def _run(self) -> Run:
        """The run that `start` has made."""
        assert self._made
        return self._made

    @property
    def id(self) -> str:
        return self._run.claim.id

    @property
    def name(self) -> str:
        return self._run.claim.name

    @property
    def directory(self) -> str:
        """Its directory, below ``root/containers``."""
        return self._run.claim.directory

    def _limit(self) -> None:
        """Start to enforce the limits that the kernel doesn't enforce."""
        options, main = self.options, self.main
        assert main
        if self._output_limit:
            self._output_limit.when_spent(partial(self._run.kill, OUTPUT))
        if options.timeout_s or options.cpu_time_s:
            from minibox.engine.process.time_limits import TimeLimits

            self._time_limits = TimeLimits(
                main.pidfd,
                wall_s=options.timeout_s,
                cpu_s=options.cpu_time_s,
                cpu_used_ns=self._cpu_ns,
                end=self._run.kill,
            )

    def _cpu_ns(self) -> int:
        """The processor time of its processes so far. If no cgroup counts, that of the processes we have seen."""
        assert self.main and self._host
        used = self._host.group.cpu_ns()
        if used is None:
            from minibox.linux.cgroup.usage_meter import descendants, processes

            roots = [self.main.pid, *(each.pid for each in list(self._commands))]
            pids = {pid for root in roots for pid in descendants(root)}
            used = self._cpu_seen_ns = max(self._cpu_seen_ns, self._cpu_ended_ns + processes(pids).cpu_ns)
        return used

    def _measure_end(self) -> None:
        """Measure what it used, after its end, before the cgroup is removed."""
        if self.log:
            self.log.finish()
            self._lines = last_lines(self.log.path, LINES_KEPT)
        self._run.measure(thoroughly=True, ended=True)
        self._written_bytes = self._run.measured.disk_bytes
        if self._written_bytes is None and self._run.storage.driver in ("overlay", "erofs"):
            self._written_bytes = self._run.storage.snapshot_bytes(self.id)
        if self._written_bytes is not None and self._output_limit:
            self._written_bytes += self._output_limit.used_bytes

    def execute(self, options: ExecOptions, outside: tuple[int, int, int]) -> Command:
        """Run another command in the container. ``outside`` is as in `start`.

        Raises:
            ContainerNotRunning: it has ended.
            CommandNotFound, CommandNotExecutable: the command is at fault.
            MiniboxError: it can't be started for another reason.
        """
        what = "execute a command in"
        self.check_running(what)
        assert self._host
        command = exec_of(self._host, options)
        streams = Streams(
            interactive=True, tty=False, owner=command.owner, outside=outside, output_limit=self._output_limit
        )
        try:
            execution = command.start(streams.fds)
            streams.begin()
        except BaseException as error:
            streams.close()
            if isinstance(error, (MiniboxError, OSError)):
                self.check_running(what)  # if the container has ended meanwhile, that is the reason
            raise

        def ended() -> None:
            execution.close()
            self._commands.discard(started)
            self._cpu_ended_ns += started.own_cpu_ns

        started = Command(execution, streams, ended)
        self._commands.add(started)
        return started

    def end_command(self, command: Command, pipes: Collection[int]) -> None:
        """Kill a command of `execute` with all that it has started, as far as that can be found; see `session.kill`."""
        from minibox.linux import session

        with suppress(OSError):  # the container has ended
            if self.main:
                others = [each.pid for each in list(self._commands) if each is not command]
                session.kill(command.pid, lambda: command.has_ended(0), [self.main.pid, *others], pipes)
        command.kill_session()

    def check_running(self, what: str) -> None:
        """Check that it is running.

        Args:
            what: what you are going to do, for the error.

        Raises:
            ContainerNotRunning: it has ended, was closed, or belongs to the process from which this one was forked.
        """
        self.check_open(what)
        words = f"{what} sandbox {self.name}"
        if not self.main:
            raise ContainerNotRunning(f"{words}: it was not started")
        if not self.is_running():
            raise ContainerNotRunning(f"{words}: its main process has ended: {self.verdict().summary}")

    def check_open(self, what: str) -> None:
        """Like `check_running`, but it may have ended.

        Raises:
            ContainerNotRunning: it was closed, or belongs to the process from which this one was forked.
        """
        if self._closing:
            if self._is_parents:
                why, hint = "it belongs to the process from which this one was forked", "make one in this process"
            else:
                why, hint = "it was closed", "do this before close, in the with block"
            raise ContainerNotRunning(f"{what} sandbox {self.name}: {why}", hint)

    @property
    def pid(self) -> int:
        """The pid of its main process; -1 before `start`."""
        return self.main.pid if self.main else -1

    def is_running(self) -> bool:
        """Is its main process running?"""
        return self.main is not None and not self._closed and self.main.wait(0) is None

    def last_lines(self, count: int) -> tuple[str, ...]:
        """The last lines that its main process wrote; () without a log."""
        if not self.log or not self.main or self.main.returncode is not None:
            return self._lines[-count:]
        return last_lines(self.log.path, count)

    def logs(self) -> str:
        """The whole log.

        Raises:
            UsageError: it has no log.
            ContainerNotRunning: it was removed.
        """
        if self.log is None:
            raise UsageError(f"sandbox {self.name} has no main process, so it has no log")
        if self._closed and not self._run.keep:
            raise ContainerNotRunning(f"read the log of sandbox {self.name}: it was closed")
        return text(self.log.path)

    def address(self) -> str | None:
        """Its IPv4 address on its network; None if it has none."""
        return self._run.address

    def send_signal(self, signal: int) -> None:
        """Send a signal to its main process. If that has ended, nothing happens."""
        assert self.main
        self._sent[int(signal)] = self._host.group.oom_kills() if self._host else -1
        self.main.send_signal(signal)

    def timed_out(self, timeout_s: float) -> None:
        """Kill it because it ran too long."""
        self._timeout_s = timeout_s
        self._run.kill(WALL_TIME)

    def measured(self) -> Measurement:
        """What it has used so far."""
        if self.main and self.main.returncode is None and not self._closed:
            self._run.measure(thoroughly=True)
        return self._run.measured

    def usage(self) -> Usage:
        """What it has used. Some values are only known after its main process has ended."""
        found, main = self.measured(), self.main
        if not main:
            return Usage(0.0)
        cpu_s, memory_bytes = found.cpu_s, found.memory_peak_bytes
        if cpu_s is None and main.returncode is not None:
            cpu_s = max(self._cpu_seen_ns, self._cpu_ended_ns + main.own_cpu_ns) / NS_A_SECOND
        if memory_bytes is None and main.returncode is not None:
            memory_bytes = main.own_memory_bytes
        peak = found.tally.peak if found.tally else None
        return Usage(main.wall_s, cpu_s, memory_bytes, peak, self._written_bytes, *found.cpu_parts_s)

    def verdict(self, log: tuple[str, ...] = ()) -> Verdict:
        """How it ended, or that it is still running.

        Args:
            log: the last lines it wrote, if it has no log.
        """
        assert self.main
        code = self.main.returncode
        if code is None and self.is_ours():
            code = self.main.reap() if self._run.ended_for else self.main.wait(0)
        log = log or self.last_lines(LINES_SHOWN)
        facts = None if code is None else self._facts(code, self._run.measured, log, self.main)
        found = judge_end(self.id, self.name, facts, self.usage())
        if found.kind == SIGNAL and code is not None and -code in self._sent:
            sender = "this program"
            return replace(found, kind=KILLED, summary=f"{sender} sent it {found.signal}", sender=sender, hint="")
        return found

    def verdict_on(self, command: Command, before: Measurement, log: tuple[str, ...] = ()) -> Verdict:
        """How a command of `execute` ended.

        Args:
            before: `measured` at its start.
            log: as in `verdict`.
        """
        assert command.returncode is not None
        found = with_oom_end(self.measured().since(before), command.pid, command.wall_s, {})
        facts = self._facts(command.returncode, found, log)
        return judge_end(self.id, self.name, facts, self.usage_of(command))

    def usage_of(self, command: Command) -> Usage:
        """What a command of `execute` used. It must have ended."""
        return Usage(command.wall_s, command.own_cpu_ns / NS_A_SECOND, command.own_memory_bytes)

    def _facts(self, code: int, measured: Measurement, log: tuple[str, ...], main: Command | None = None) -> Facts:
        """
        Args:
            main: the main process, if it is the one that ended.
        """
        options = {name: getattr(self.options, name) for name in OPTIONS}
        if self._timeout_s is not None:
            options["timeout_s"] = self._timeout_s
        run, relayed = self._run, main.relayed if main and self.options.init else 0
        before = self._sent.get(relayed or -code, -1) if main else -1
        return measured.facts(
            code,
            options,
            relayed=relayed,
            ended_for=run.ended_for,
            crowded=run.crowded,
            log=log,
            oom_kills_before=before,
        )

    def freeze(self, snapshot_id: str = "") -> HeldSnapshot:
        """Take a snapshot of its root file system. Its processes are frozen meanwhile.

        Args:
            snapshot_id: as in `snapshots.freeze`.

        Raises:
            Unsupported: it has ended, and its files were in memory because its disk is limited.
            MiniboxError: it was closed, the disk is full, or a file can't be read.
        """
        from minibox.engine.container.snapshots import freeze
        from minibox.engine.state.freezing import frozen

        self.check_open("freeze")
        assert self.main
        run = self._run
        config = {**run.image.config, "config": run.record()["Config"]}
        image = replace(run.image, config=config)
        with frozen(self.home.root, self.id, run.note):
            return freeze(self.home.root, self.id, run.storage.driver, image, snapshot_id)

    def end_processes(self) -> None:
        """Kill all its processes, but keep its files until `close`. Its main process must have ended."""
        self._run.end_processes()

    def keep_files(self) -> None:
        """Keep its files after its end, for `minibox shell` and `minibox rm`."""
        self._run.keep_files()

    def close(self, later: Later | None = None) -> None:
        """End and remove it.

        Args:
            later: called with a function that removes its files, to run it later. It isn't used for a container with a
                name, because another may need the name at once.
        """
        self._closing = True
        with self._lock:
            if self._closed:
                return
            try:
                self._close(later)
            finally:
                self._closed = True
                _open_here.discard(self)

    def _close(self, later: Later | None) -> None:
        run = self._made
        if not run:
            return
        try:
            if self.main:
                if not self.main.has_ended(0):
                    self.send_signal(SIGKILL)
                for each in list(self._commands):  # they die with it, and it ends once we have waited for them
                    each.reap()
                code = self.main.reap()
                if self._time_limits:
                    self._time_limits.wait()
                run.note_end(code, code if code >= 0 else 128 - code, relayed=self.main.relayed)
        finally:
            try:
                run.close(None if self.options.name else later)
            finally:
                if self.log:
                    self.log.finish()

    def is_ours(self) -> bool:
        """Is it open, and does this process own it?"""
        return not self._closed and not self._is_parents

    def after_fork(self) -> None:
        """Disable this object in the child after a fork."""
        self._closed = self._closing = self._is_parents = True
        self._lock = allocate_lock()  # another thread may have held the old one
        if self._made:
            self._made.after_fork()
        if self.log:
            self.log.after_fork()


_open_here: WeakSet[Embedded] = WeakSet()


def _after_fork() -> None:
    for each in list(_open_here):
        each.after_fork()
    _open_here.clear()


os.register_at_fork(after_in_child=_after_fork)
