"""`minibox.Sandbox`, a container that lives as long as a ``with`` block, and `minibox.Snapshot`, its frozen file system."""

from __future__ import annotations

import os
from functools import partial
from hashlib import sha256
from typing import Any, overload

from minibox.api.options import ContainerOptions, run_options, variables
from minibox.api.place import Places, place
from minibox.api.process import DEVNULL, Ends, Popen, Text, finish, last_words
from minibox.api.run import Owner, streams, words
from minibox.api.sandbox_files import SandboxFiles
from minibox.engine import readiness, snapshots
from minibox.engine.completed import CompletedRun
from minibox.engine.exec import ExecOptions
from minibox.engine.interrupts import uninterrupted
from minibox.engine.readiness import wait_until
from minibox.errors import UsageError
from minibox.outcome import Usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Unpack

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
    from minibox.outcome import Verdict


class Sandbox(SandboxFiles):
    """A container of its own root file system, into which commands and files go, until it is closed.

    It belongs to this process and dies with it, whatever kills it; nothing of it is left then. A process that is forked
    from this one can't use it, and doesn't end it.

    Attributes:
        id, name: the container's, for ``minibox exec`` and its like.
        pid: of its main process, as this process sees it.
    """

    def __init__(
        self,
        image: str,
        args: Words | None = None,
        *,
        service: bool = False,
        _snapshot: snapshots.Held | None = None,
        **options: Unpack[ContainerOptions],
    ) -> None:
        """Start it.

        Args:
            image: as of `run`.
            args: the main process, behind the image's entrypoint if that has one. None: nothing runs, but a tiny init
                that reaps.
            service: the main process is the image's own command, as for a database's image.
            options: see `ContainerOptions`.

        Raises:
            CommandNotFound, CommandNotExecutable: the command is at fault.
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
        """Run a command in it, and wait for its end; see `minibox.run`.

        Args:
            env: variables on top of the sandbox's.
            cwd, user: the sandbox's when they aren't given.

        Raises:
            ContainerNotRunning: the sandbox has ended.
            CommandNotFound, CommandNotExecutable: the command is at fault.
            TimeoutExpired: its time was over: it and the children of its session were killed.
            CalledProcessError: it failed, and ``check`` was given.
        """
        stdin, stdout, stderr = streams(input, stdin, stdout, stderr, capture_output)
        before = uninterrupted(self._box.measured)
        command: Popen[Any] = self.popen(
            args,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            encoding=encoding,
            errors=errors,
            env=env,
            cwd=cwd,
            user=user,
        )
        out, err = finish(command, input, timeout, command.kill)
        command.wait()

        def completed() -> CompletedRun[Any]:
            started, log = command._started, last_words(out, err)
            verdict, usage = self._box.verdict_on(started, before, log), self._box.usage_of(started)
            return CompletedRun(command.args, command.wait(), out, err, verdict, usage)

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
        """Start a command in it, as `subprocess.Popen`; other arguments as of `run`.

        Raises:
            ContainerNotRunning: the sandbox has ended.
            CommandNotFound, CommandNotExecutable: the command is at fault.
        """
        options = exec_options(args, env, cwd, user)
        command: Popen[Any] = Popen(options.command, Text(text, encoding, errors), bufsize)
        start = partial(self._box.execute, options)
        try:
            uninterrupted(lambda: command.begin(start, (stdin, stdout, stderr)))
            return command
        except BaseException:
            uninterrupted(command.abandon)
            raise

    # ---- its root file system ---------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Freeze its root file system, as it is now, to begin other sandboxes with; see `Snapshot`.

        Its processes are stopped meanwhile, and go on. What they have only in memory isn't in it: stop a database
        before, so that all of it is in its files.

        Raises:
            Unsupported: it was made with ``disk``, and has ended.
            MiniboxError: the disk of the host is full.
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
        """Wait until it is ready: one of these is given, or ``http`` and ``port``.

        Args:
            port: something listens at this TCP port, on whatever address, as the sandbox itself sees it.
            log: the main process has written this text, or what a regular expression matches.
            http: a path, or a URL with ``http://``: GET is answered from inside with a status below 400. The port is
                80 unless the URL or ``port`` says otherwise.
            file: this path is there.
            exec: this command succeeds.
            timeout: seconds.

        Raises:
            TimedOut: it wasn't in time.
            ContainerNotRunning: the main process has ended. Both tell its last lines.
        """
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
            raise UsageError("wait_for takes one of port, log, http, file and exec")
        if http is not None:
            if any(each is not None for each in (log, file, exec)):
                raise UsageError("wait_for takes http with port, and nothing else with it")
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
        """What its main process has written so far to standard output and error; the last 8 to 16 MiB of it.

        Raises:
            UsageError: it has none.
        """
        return uninterrupted(self._box.logs)

    # ---- life -----------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._box.id

    @property
    def name(self) -> str:
        return self._box.name

    @property
    def pid(self) -> int:
        assert self._box.main
        return self._box.main.pid

    @property
    def address(self) -> str | None:
        """Its IPv4 address on its network; None where it has none."""
        return self._box.address()

    @property
    def verdict(self) -> Verdict:
        """How it came to its end, or that it runs."""
        return uninterrupted(self._box.verdict)

    @property
    def usage(self) -> Usage:
        """What all in it has used so far."""
        return uninterrupted(self._box.usage)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of its main process; the return code.

        Raises:
            TimeoutExpired: it has not ended after ``timeout`` seconds.
        """
        from minibox.errors import TimeoutExpired

        assert self._box.main
        code = self._box.main.wait(timeout)
        if code is None:
            raise TimeoutExpired(self._box.options.command, timeout or 0.0)
        return code

    def kill(self, signal: int = 9) -> None:
        """Send a signal to its main process; SIGKILL ends all that runs in it."""
        self._box.send_signal(signal)

    def keep(self) -> None:
        """Its files outlive it, as of a container that has ended: for ``minibox shell``, ``minibox rm``."""
        uninterrupted(self._box.keep_files)

    def close(self) -> None:
        """End it, and remove what it had; from any thread, and twice is fine."""
        self._owner.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_box") and self._box.is_ours():
            import warnings

            warnings.warn(f"sandbox {self.name} was not closed", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        return f"<minibox.Sandbox {self.name} of {self.image}{'' if self._box.is_ours() else ', closed'}>"


def exec_options(
    args: Words,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    user: str | int | None,
) -> ExecOptions:
    """What the arguments of `Sandbox.popen` mean."""
    return ExecOptions(
        words(args),
        interactive=True,
        env=variables(env or {}),
        user="" if user is None else str(user),
        workdir=os.fspath(cwd) if cwd is not None else "",
    )


class Snapshot:
    """What a sandbox had on its root file system; `Sandbox.snapshot` and `open_or_create` make one.

    What begins with it costs the same however many files there are: they are a layer below, and none is copied. It is
    there as long as somebody holds it, this process or another, and is removed with the last; whoever is killed holds
    nothing. What is mounted, volumes and tmpfs, isn't in it, nor is any process.

    Attributes:
        id: 64 hexadecimal digits.
    """

    _held: snapshots.Held

    def __init__(self) -> None:
        """Not by users."""

    def _hold(self, held: snapshots.Held) -> None:
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
        """The snapshot of that key: of all processes that want it at one time, one prepares it, and the others wait.

        For workers of one test run: with the last that holds it, it goes, and the next run prepares anew.

        Args:
            key: any text; those of one state root share it.
            prepare: makes a sandbox, writes to it what is wanted and returns it; it is frozen and closed.
            root, runroot: as of `ContainerOptions`; what ``prepare`` makes must be there too.

        Raises:
            MiniboxError: the disk is full; and what ``prepare`` raises.
        """
        where: Places = {}
        if root is not None:
            where["root"] = root
        if runroot is not None:
            where["runroot"] = runroot
        snapshot_id = sha256(key.encode()).hexdigest()

        def make() -> snapshots.Held:
            with prepare() as box:
                return box._box.freeze(snapshot_id)

        snapshot = cls()
        try:
            snapshot._hold(snapshots.hold_or_freeze(place(where).root, snapshot_id, make))
            return snapshot
        except BaseException:
            snapshot.close()
            raise

    @property
    def id(self) -> str:
        return self._held.frozen.id

    def sandbox(
        self, args: Words | None = None, *, service: bool = False, **options: Unpack[ContainerOptions]
    ) -> Sandbox:
        """A sandbox that begins with it, and is changed alone; arguments and errors as of `Sandbox`.

        Variables, user, working directory and command are those of the sandbox that was frozen unless they are given;
        its limits, mounts and networks are not.
        """
        options.setdefault("root", self._held.root)
        given: dict[str, Any] = {**options, "storage_driver": self._held.frozen.driver}
        return Sandbox(self._held.frozen.image.reference, args, service=service, _snapshot=self._held, **given)

    def close(self) -> None:
        """Let go of it. Sandboxes that have begun with it go on."""
        if hasattr(self, "_held"):
            uninterrupted(self._held.close)

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        held = getattr(self, "_held", None)
        if held and not held.is_closed:
            import warnings

            warnings.warn(f"snapshot {self.id[:12]} was not closed", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        return f"<minibox.Snapshot {self.id[:12]} of {self._held.frozen.image.reference}>"
