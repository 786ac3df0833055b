"""`minibox.aio.Sandbox` and `Snapshot`: the classes of `minibox` for asyncio."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Unpack, overload

from minibox.aio.blocking import in_thread, started
from minibox.aio.process import Process, connected, finish
from minibox.api import sandbox as of_api
from minibox.api.arguments import OPTIONS, checked
from minibox.api.keywords import CommandAsBytes, CommandAsGiven, CommandAsText
from minibox.api.options import ContainerOptions
from minibox.api.ownership import Owned, anywhere
from minibox.api.process import DEVNULL, Ends, Stream, Text, last_words
from minibox.api.run import streams, words
from minibox.api.sandbox import Snapshot as SnapshotOfApi
from minibox.api.sandbox_files import READ_BYTES_MAX
from minibox.engine.process.completed import CompletedRun
from minibox.engine.report.readiness import Succeeds, pauses
from minibox.errors import ContainerNotRunning
from minibox.outcome import Usage, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.api.run import Words


class Sandbox(Owned, options=OPTIONS):
    """Like `minibox.Sandbox`, but it starts when you enter it: ``async with aio.Sandbox("base") as box``.

    Attributes:
        sync: the `minibox.Sandbox` behind it. Only after the start.
    """

    @checked(OPTIONS)
    def __init__(
        self,
        image: str,
        args: Words | None = None,
        *,
        service: bool = False,
        **options: Unpack[ContainerOptions],
    ) -> None:
        """Take the arguments of `minibox.Sandbox`. Nothing is started yet."""
        command = words(args) or None
        self._make: Callable[[], of_api.Sandbox] = partial(of_api.Sandbox, image, command, service=service, **options)
        self._box: of_api.Sandbox | None = None

    async def start(self) -> Sandbox:
        """Start it without an ``async with`` block; call `close` in the end. Raises what `minibox.Sandbox` raises."""
        if self._box is None:
            self._box = await started(self._make, lambda box: box.close())
        return self

    async def __aenter__(self) -> Sandbox:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @anywhere
    async def close(self) -> None:
        """End the sandbox and remove it. You may call this twice."""
        if self._box is not None:
            await in_thread(self._box.close)

    @property
    def sync(self) -> of_api.Sandbox:
        if self._box is None:
            raise ContainerNotRunning("the sandbox was not started", "use async with, or await start()")
        return self._box

    # ---- commands -------------------------------------------------------------------------------

    @overload
    async def run(self, args: Words, **keywords: Unpack[CommandAsText]) -> CompletedRun[str]: ...

    @overload
    async def run(self, args: Words, **keywords: Unpack[CommandAsBytes]) -> CompletedRun[bytes]: ...

    @overload
    async def run(self, args: Words, **keywords: Unpack[CommandAsGiven]) -> CompletedRun[Any]: ...

    async def run(
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
        """Like `minibox.Sandbox.run`. Cancelling it kills the command."""
        stdin, stdout, stderr = streams(input, stdin, stdout, stderr, capture_output)
        box = self.sync._box
        before = box.measured()
        process = await self.popen(args, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd, user=user)
        form = Text(text, encoding, errors)
        end = partial(box.end_command, process._started, process.pipes())
        out, err = await finish(process, input, timeout, end, form)
        code = await process.wait()
        verdict = box.verdict_on(process._started, before, last_words(out, err))
        done: CompletedRun[Any] = CompletedRun(process.args, code, out, err, verdict, box.usage_of(process._started))
        if check:
            done.check_returncode()
        return done

    async def popen(
        self,
        args: Words,
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str | int | None = None,
    ) -> Process:
        """Start a command; arguments as for `minibox.Sandbox.popen`. The pipes carry bytes, as always in asyncio."""
        options, box = of_api.exec_options(args, env, cwd, user), self.sync._box
        ends, before = Ends(stdin, stdout, stderr), box.measured()
        try:
            command = await in_thread(lambda: box.execute(options, ends.outside), lambda command: command.end())
            process = await connected(options.command, command, ends)
            process._judge = partial(box.verdict_on, command, before)
            return process
        finally:
            ends.close()

    # ---- files ----------------------------------------------------------------------------------

    async def write_file(
        self, path: str | os.PathLike[str], data: str | bytes, *, mode: int = 0o644, user: str | int | None = None
    ) -> None:
        """Like `minibox.Sandbox.write_file`."""
        await in_thread(lambda: self.sync.write_file(path, data, mode=mode, user=user))

    async def read_file(self, path: str | os.PathLike[str], *, limit_bytes: int = READ_BYTES_MAX) -> bytes:
        """Like `minibox.Sandbox.read_file`."""
        return await in_thread(lambda: self.sync.read_file(path, limit_bytes=limit_bytes))

    async def put(self, source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
        """Like `minibox.Sandbox.put`."""
        await in_thread(lambda: self.sync.put(source, path))

    async def get(self, path: str | os.PathLike[str], destination: str | os.PathLike[str]) -> None:
        """Like `minibox.Sandbox.get`."""
        await in_thread(lambda: self.sync.get(path, destination))

    async def diff(self) -> list[tuple[str, str]]:
        """Like `minibox.Sandbox.diff`."""
        return await in_thread(self.sync.diff)

    async def commit(self, reference: str, *, changes: Iterable[str] = (), message: str = "") -> str:
        """Like `minibox.Sandbox.commit`."""
        return await in_thread(lambda: self.sync.commit(reference, changes=changes, message=message))

    async def snapshot(self) -> Snapshot:
        """Like `minibox.Sandbox.snapshot`."""
        return Snapshot(await in_thread(self.sync.snapshot, lambda snapshot: snapshot.close()))

    async def logs(self) -> str:
        """Like `minibox.Sandbox.logs`."""
        return await in_thread(self.sync.logs)

    # ---- life -----------------------------------------------------------------------------------

    async def wait_for(
        self,
        *,
        port: int | None = None,
        log: str | re.Pattern[str] | None = None,
        http: str | None = None,
        file: str | os.PathLike[str] | None = None,
        exec: Words | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Like `minibox.Sandbox.wait_for`."""
        condition = self.sync._condition(port, log, http, file, exec)
        command = words(exec)
        try:
            for pause_s in pauses(self.sync._box, condition, timeout):
                if isinstance(condition, Succeeds):
                    done = await self.run(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
                    met = not done.returncode
                else:
                    met = await in_thread(condition.is_met) if condition.blocks else condition.is_met()
                if met:
                    return
                await asyncio.sleep(pause_s)
        finally:
            condition.close()

    async def wait(self) -> int:
        """Wait until the main process has ended, and return its return code."""
        main = self.sync._box.main
        assert main
        return await Process(self.sync._box.options.command, main).wait()

    def kill(self, signal: int = 9) -> None:
        """Like `minibox.Sandbox.kill`."""
        self.sync.kill(signal)

    def keep(self) -> None:
        """Like `minibox.Sandbox.keep`."""
        self.sync.keep()

    @property
    def id(self) -> str:
        return self.sync.id

    @property
    def name(self) -> str:
        return self.sync.name

    @property
    def pid(self) -> int:
        return self.sync.pid

    @property
    def address(self) -> str | None:
        """The IPv4 address on its network, or None."""
        return self.sync.address

    @property
    def verdict(self) -> Verdict:
        """How the sandbox ended, or that it is running."""
        return self.sync.verdict

    @property
    def usage(self) -> Usage:
        """The CPU time, memory and so on that the sandbox has used so far."""
        return self.sync.usage


class Snapshot(Owned, options=OPTIONS):
    """Like `minibox.Snapshot`: ``async with await box.snapshot() as snapshot, snapshot.sandbox() as fork``."""

    def __init__(self, snapshot: SnapshotOfApi) -> None:
        """Wrap a `minibox.Snapshot`. Closing this closes it, too."""
        self._snapshot = snapshot

    @property
    def id(self) -> str:
        return self._snapshot.id

    def sandbox(
        self, args: Words | None = None, *, service: bool = False, **options: Unpack[ContainerOptions]
    ) -> Sandbox:
        """Return a sandbox that starts from this snapshot once you enter it; arguments as for `minibox.Snapshot.sandbox`."""
        box = Sandbox("")
        box._make = partial(self._snapshot.sandbox, words(args) or None, service=service, **options)
        return box

    @anywhere
    async def close(self) -> None:
        """Release the snapshot."""
        await in_thread(self._snapshot.close)

    async def __aenter__(self) -> Snapshot:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
