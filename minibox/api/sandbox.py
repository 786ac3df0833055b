"""`minibox.Sandbox`, a container that lives as long as a ``with`` block, and `minibox.Snapshot`, its frozen file system."""

from __future__ import annotations

import os
from functools import partial
from hashlib import sha256
from typing import Any, overload

from minibox.api.arguments import OPTIONS, checked
from minibox.api.options import ContainerOptions, run_options, variables
from minibox.api.ownership import Owned, anywhere
from minibox.api.place import Places, place
from minibox.api.process import DEVNULL, Ends, Popen, Text, finish, last_words
from minibox.api.run import Owner, streams, words
from minibox.api.sandbox_files import SandboxFiles
from minibox.api.sandbox_life import SandboxLife
from minibox.base.files import AutoClose
from minibox.engine.container import snapshots
from minibox.engine.container.exec import ExecOptions
from minibox.engine.host.interrupts import uninterrupted
from minibox.engine.process.completed import CompletedRun
from minibox.engine.report import readiness
from minibox.engine.report.readiness import wait_until
from minibox.errors import StoreError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping
    from typing import SupportsIndex, Unpack

    from minibox.api.keywords import (
        CommandAsBytes,
        CommandAsGiven,
        CommandAsText,
        PopenAsBytes,
        PopenAsGiven,
        PopenAsText,
    )
    from minibox.api.process import Stream
    from minibox.api.run import Words
    from minibox.engine.process.usage import Measurement


class Sandbox(SandboxFiles, SandboxLife, AutoClose, options=OPTIONS):
    """A running container in which you run commands and write files, until you close it.

    ::

        with minibox.Sandbox("base") as box:
            box.write_file("/tmp/greeting", "hello")
            print(box.run(["cat", "/tmp/greeting"], capture_output=True, text=True).stdout)

    A sandbox belongs to this process and dies with it, however that ends, and leaves nothing behind. A fork of this
    process can't use the sandbox, and doesn't end it.

    Attributes:
        id, name: the container's id and name, for ``minibox exec`` and other commands.
        pid: the process id of its main process, in this process's PID namespace.
    """

    @checked(OPTIONS)
    def __init__(
        self,
        image: str,
        args: Words | None = None,
        *,
        service: bool = False,
        _snapshot: snapshots.HeldSnapshot | None = None,
        **options: Unpack[ContainerOptions],
    ) -> None:
        """Start the sandbox.

        Args:
            image: the image's name, as for `run`.
            args: the command of the main process; the image's entrypoint, if any, comes first. None starts only a tiny
                init, which reaps zombies.
            service: run the image's own command as the main process, for example a database.
            options: see `ContainerOptions`.

        Raises:
            CommandNotFound, CommandNotExecutable: the command can't be run.
            MiniboxError: anything else.
        """
        where = place(options)
        command = words(args)
        wanted = run_options(image, command, options, idle=not command and not service)
        self.image = image
        self._owner = Owner(wanted, where, image=_snapshot.frozen.image if _snapshot else None)
        self._box = self._owner.box

        def start() -> None:
            ends = Ends(DEVNULL, DEVNULL, DEVNULL)
            try:
                self._box.start(ends.outside, logged=not wanted.idle)
            finally:
                ends.close()

        try:
            self._owner.begin(start)
        except BaseException:
            self.close()
            raise

    # ---- commands -------------------------------------------------------------------------------

    @overload
    def run(self, args: Words, **keywords: Unpack[CommandAsText]) -> CompletedRun[str]: ...

    @overload
    def run(self, args: Words, **keywords: Unpack[CommandAsBytes]) -> CompletedRun[bytes]: ...

    @overload
    def run(self, args: Words, **keywords: Unpack[CommandAsGiven]) -> CompletedRun[Any]: ...

    def run(
        self,
        args: Words,
        *,
        input: str | bytes | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        capture_output: bool = False,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        timeout: float | None = None,
        check: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str | int | None = None,
    ) -> CompletedRun[Any]:
        """Run a command in the sandbox and wait until it has ended. Other arguments are as for `minibox.run`.

        Args:
            env: environment variables, added to the sandbox's.
            cwd, user: by default the sandbox's.

        Raises:
            ContainerNotRunning: the sandbox has ended.
            CommandNotFound, CommandNotExecutable: the command can't be run.
            TimeoutExpired: the timeout expired. The command was killed, and with it its children, its session, and
                whatever holds its pipes. Only a daemon that has let go of all of these lives on.
            CalledProcessError: the command failed and ``check`` is true.
        """
        wired = streams(input, stdin, stdout, stderr, capture_output)
        options = exec_options(args, env, cwd, user)
        command: Popen[Any] = Popen(options.command, Text(text, encoding, errors))
        before = self._begin(command, options, wired)
        out, err = finish(command, input, timeout, lambda: self._box.end_command(command._started, command.pipes()))

        def completed() -> CompletedRun[Any]:
            code, started = command.wait(), command._started
            verdict = self._box.verdict_on(started, before, last_words(out, err))
            return CompletedRun(command.args, code, out, err, verdict, self._box.usage_of(started))

        done = uninterrupted(completed)
        if check:
            done.check_returncode()
        return done

    @overload
    def popen(self, args: Words, **keywords: Unpack[PopenAsText]) -> Popen[str]: ...

    @overload
    def popen(self, args: Words, **keywords: Unpack[PopenAsBytes]) -> Popen[bytes]: ...

    @overload
    def popen(self, args: Words, **keywords: Unpack[PopenAsGiven]) -> Popen[Any]: ...

    def popen(
        self,
        args: Words,
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        bufsize: int = -1,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str | int | None = None,
    ) -> Popen[Any]:
        """Start a command in the sandbox and don't wait for it, like `subprocess.Popen`. Other arguments are as for `run`.

        Raises:
            ContainerNotRunning: the sandbox has ended.
            CommandNotFound, CommandNotExecutable: the command can't be run.
        """
        options = exec_options(args, env, cwd, user)
        command: Popen[Any] = Popen(options.command, Text(text, encoding, errors), bufsize)
        self._begin(command, options, (stdin, stdout, stderr))
        return command

    def _begin(
        self,
        command: Popen[Any],
        options: ExecOptions,
        wired: tuple[Stream, Stream, Stream],
    ) -> Measurement:
        """Start a command, and return what the sandbox had used before."""
        before: list[Measurement] = []

        def begin() -> None:
            before.append(self._box.measured())
            command.begin(partial(self._box.execute, options), wired)
            command._judge = lambda: self._box.verdict_on(command._started, before[0])

        try:
            uninterrupted(begin)
        except BaseException:
            uninterrupted(command.abandon)
            raise
        return before[0]

    # ---- its root file system ---------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Take a snapshot of the root file system, from which you can start other sandboxes; see `Snapshot`.

        The sandbox's processes are paused meanwhile. A snapshot holds files, not memory: stop a database first, so that
        all its data is in its files.

        Raises:
            Unsupported: the sandbox was made with ``disk``, and has ended.
            MiniboxError: the host's disk is full.
        """
        snapshot = Snapshot()
        try:
            uninterrupted(lambda: snapshot._hold(self._box.freeze()))
            return snapshot
        except BaseException:
            snapshot.close()
            raise

    # ---- readiness ------------------------------------------------------------------------------

    def wait_for(
        self,
        *,
        port: int | None = None,
        log: str | re.Pattern[str] | None = None,
        http: str | None = None,
        file: str | os.PathLike[str] | None = None,
        exec: Words | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Wait until the sandbox is ready. Give exactly one condition; ``http`` may come with ``port``.

        Args:
            port: a process in the sandbox listens on this TCP port, on any address.
            log: the main process has written this string, or a match of this regular expression.
            http: GET of this path or ``http://`` URL, from inside the sandbox, returns a status below 400. The port is
                80 unless the URL or ``port`` says otherwise.
            file: this path exists.
            exec: this command succeeds.
            timeout: seconds.

        Raises:
            TimedOut: the timeout expired.
            ContainerNotRunning: the main process has ended. Both errors show its last lines of output.
        """
        self._box.check_open("wait for")
        condition = self._condition(port, log, http, file, exec)
        wait_until(self._box, condition, timeout)

    def _condition(
        self,
        port: int | None,
        log: str | re.Pattern[str] | None,
        http: str | None,
        file: str | os.PathLike[str] | None,
        exec: Words | None,
    ) -> readiness.Condition:
        if http is None and sum(each is not None for each in (port, log, file, exec)) != 1:
            raise UsageError("wait_for needs exactly one of port, log, http, file and exec")
        if http is not None:
            if any(each is not None for each in (log, file, exec)):
                raise UsageError("wait_for: only port can be given with http")
            return readiness.Http(self._box, http, port)
        if port is not None:
            return readiness.Port(self._box, port)
        if log is not None:
            return readiness.Log(self._box, log)
        if file is not None:
            return readiness.File(self._box, os.fspath(file))
        command = words(exec)

        def succeeds() -> bool:
            return not self.run(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL).returncode

        return readiness.Succeeds(command, succeeds)

    def logs(self) -> str:
        """Return the output of the main process so far, standard output and error; the last 8 to 16 MiB of it.

        Raises:
            UsageError: the sandbox has no main process.
        """
        return uninterrupted(self._box.logs)

    # ---- the end --------------------------------------------------------------------------------

    @anywhere
    def close(self) -> None:
        """End the sandbox and remove it. You may call this twice, and from any thread."""
        self._owner.close()

    def __del__(self) -> None:
        if hasattr(self, "_box") and self._box.is_ours():
            import warnings

            warnings.warn(f"sandbox {self.name} was not closed", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        state = ", another process's" if self._is_parents() else "" if self._box.is_ours() else ", closed"
        return f"<minibox.Sandbox {self.name} of {self.image}{state}>"


def exec_options(
    args: Words,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    user: str | int | None,
) -> ExecOptions:
    """Convert the arguments of `Sandbox.popen` to options of the engine."""
    return ExecOptions(
        words(args),
        interactive=True,
        env=variables(env or {}),
        user="" if user is None else str(user),
        workdir=os.fspath(cwd) if cwd is not None else "",
    )


class Snapshot(Owned, AutoClose, options=OPTIONS):
    """A frozen copy of a sandbox's root file system. `Sandbox.snapshot` and `open_or_create` make one.

    Starting a sandbox from it takes the same time however many files there are: they are a lower layer, and none is
    copied. A snapshot exists as long as this or another process holds it, and is removed with the last; a killed process
    holds nothing. It contains neither mounts, such as volumes and tmpfs, nor processes. It can be pickled, as an
    argument for `multiprocessing`: the other process then holds it, too, until it closes it or forgets it.

    Attributes:
        id: 64 hexadecimal digits.
    """

    _held: snapshots.HeldSnapshot
    _is_received = False

    def __init__(self) -> None:
        """Don't call this; use `Sandbox.snapshot` or `open_or_create`."""

    def _hold(self, held: snapshots.HeldSnapshot) -> None:
        self._held = held

    @classmethod
    def open_or_create(
        cls,
        key: str,
        prepare: Callable[[], Sandbox],
        *,
        root: str | os.PathLike[str] | None = None,
        runroot: str | os.PathLike[str] | None = None,
    ) -> Snapshot:
        """Return the snapshot with this key. One process prepares it; others that want it meanwhile wait.

        This is for the workers of a test run: when the last one closes the snapshot, it is removed, and the next run
        prepares it again.

        Args:
            key: any string. Processes with the same ``root`` and ``key`` share the snapshot.
            prepare: makes a sandbox, prepares it and returns it. It is then frozen and closed.
            root, runroot: as in `ContainerOptions`; ``prepare`` must use the same.

        Raises:
            MiniboxError: the disk is full. What ``prepare`` raises is passed on.
        """
        where: Places = {}
        if root is not None:
            where["root"] = root
        if runroot is not None:
            where["runroot"] = runroot
        snapshot_id = sha256(key.encode()).hexdigest()

        def make() -> snapshots.HeldSnapshot:
            with prepare() as box:
                return box._box.freeze(snapshot_id)

        snapshot = cls()
        try:
            snapshot._hold(snapshots.hold_or_freeze(place(where).home.root, snapshot_id, make))
            return snapshot
        except BaseException:
            snapshot.close()
            raise

    @property
    @anywhere
    def id(self) -> str:
        return self._held.frozen.id

    def sandbox(
        self, args: Words | None = None, *, service: bool = False, **options: Unpack[ContainerOptions]
    ) -> Sandbox:
        """Start a sandbox from this snapshot, which it doesn't change. Arguments and errors are as for `Sandbox`.

        Variables, user, working directory and command are by default those of the frozen sandbox. Its limits, mounts
        and networks are not taken over.
        """
        self._check_open("start a sandbox from")
        options.setdefault("root", self._held.root)
        given: dict[str, Any] = {**options, "storage_driver": self._held.frozen.driver}
        return Sandbox(self._held.frozen.image.reference, args, service=service, _snapshot=self._held, **given)

    @anywhere
    def close(self) -> None:
        """Release the snapshot. Sandboxes that were started from it keep running."""
        if hasattr(self, "_held"):
            uninterrupted(self._held.close)

    def __reduce_ex__(self, _: SupportsIndex) -> tuple[Any, ...]:
        """Support pickle, to send it to another process, which holds it as well; it must get it before this is closed."""
        self._check_open("send")
        return _received, (self._held.root, self.id)

    def _check_open(self, what: str) -> None:
        self._check_owner(what)
        if self._held.is_closed:
            raise StoreError(f"{what} {self!r}: it was closed", "do this before close, in the with block")

    def __del__(self) -> None:
        held = getattr(self, "_held", None)
        if held and not held.is_closed:
            if not self._is_received:  # a copy that was sent is nobody's to close
                import warnings

                warnings.warn(f"snapshot {self.id[:12]} was not closed", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        return f"<minibox.Snapshot {self.id[:12]} of {self._held.frozen.image.reference}>"


def _received(root: str, snapshot_id: str) -> Snapshot:
    """Return the snapshot that another process has sent."""
    held = snapshots.hold(root, snapshot_id)
    if held is None:
        raise StoreError(
            f"hold the snapshot {snapshot_id[:12]} that another process has sent: it is gone",
            "keep it open there until it was received here",
        )
    snapshot = Snapshot()
    snapshot._is_received = True
    snapshot._hold(held)
    return snapshot
