"""A command in a sandbox, with the interface of `asyncio.subprocess.Process`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from minibox.aio.blocking import in_thread
from minibox.api.ownership import anywhere
from minibox.api.process import Ends, Handle, Text
from minibox.engine.process.command import Command
from minibox.errors import TimeoutExpired

READ_BYTES = 1 << 16
SURVIVORS_S = 0.1  # how long to read the pipes of a killed command: children that survive it may hold them open


class Process(Handle):
    """A running command. `Sandbox.popen` returns one.

    Attributes:
        args: the command.
        stdin: a writer for its standard input; None if that isn't a pipe.
        stdout, stderr: readers of its output; None if that isn't a pipe.
    """

    def __init__(self, args: tuple[str, ...], started: Command) -> None:
        """Don't call this; use `Sandbox.popen`."""
        self.args = args
        self._started = started
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._ended: asyncio.Future[int] | None = None

    @anywhere
    def pipes(self) -> list[int]:
        """Return the inodes of the pipes of its output, as far as they are open here."""
        files = [each.get_extra_info("pipe") for each in self._transports if isinstance(each, asyncio.ReadTransport)]
        return [os.fstat(file.fileno()).st_ino for file in files]

    async def wait(self) -> int:
        """Wait until the command has ended, and return its return code."""
        if self._started.returncode is not None:
            return self._started.returncode
        loop = asyncio.get_running_loop()
        watched = os.dup(self._started.pidfd)
        ended = loop.create_future()

        def note() -> None:
            if not ended.done():
                ended.set_result(None)

        loop.add_reader(watched, note)
        try:
            await ended
        finally:
            loop.remove_reader(watched)
            os.close(watched)
        return self._started.reap()

    async def communicate(self, input: bytes | None = None) -> tuple[bytes | None, bytes | None]:
        """Write ``input``, read all output, and wait until the command has ended.

        Returns:
            Its standard output and standard error; None for a stream that isn't a pipe.
        """
        out, err, _ = await self.collect(input or b"", None)
        return out, err

    @anywhere
    async def collect(
        self, data: bytes, timeout_s: float | None, kill: Callable[[], object] | None = None
    ) -> tuple[bytes | None, bytes | None, bool]:
        """Like `communicate`, with a timeout, at which ``kill`` is called.

        Returns:
            Standard output, standard error, and whether the timeout expired; then the output is what there was so far.
        """
        found: tuple[list[bytes], list[bytes]] = ([], [])
        jobs: list[asyncio.Task[Any]] = [
            asyncio.create_task(_gather(reader, parts))
            for reader, parts in zip((self.stdout, self.stderr), found, strict=True)
            if reader
        ]
        if self.stdin:
            jobs.append(asyncio.create_task(_feed(self.stdin, data)))
        jobs.append(asyncio.create_task(self.wait()))
        late = False
        try:
            _, pending = await asyncio.wait(jobs, timeout=timeout_s)
            if late := bool(pending):
                (kill or self.kill)()
                await self.wait()
                await asyncio.wait(jobs, timeout=SURVIVORS_S)
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
        out, err = (
            b"".join(parts) if reader else None for reader, parts in zip((self.stdout, self.stderr), found, strict=True)
        )
        return out, err, late

    @anywhere
    def close(self) -> None:
        """Close the pipes. The command keeps running."""
        for transport in self._transports:
            transport.close()
        self._transports.clear()

    async def __aenter__(self) -> Process:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close standard input and wait for the command. If the wait is cancelled, kill it."""
        try:
            if self.stdin:
                self.stdin.close()
            await self.wait()
        except asyncio.CancelledError:
            self.kill()
            raise
        finally:
            self.close()


async def connected(args: tuple[str, ...], started: Command, ends: Ends) -> Process:
    """Return the `Process` of a started command, with its pipes connected to the event loop. Cancelled, it ends the command."""
    process, loop = Process(args, started), asyncio.get_running_loop()
    ends.begun()
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            if (fd := ends.take(number)) >= 0:
                reader = asyncio.StreamReader()
                transport, _ = await loop.connect_read_pipe(
                    partial(asyncio.StreamReaderProtocol, reader), open(fd, "rb", 0)
                )
                process._transports.append(transport)
                setattr(process, name, reader)
        if (fd := ends.take(0)) >= 0:
            writer, protocol = await loop.connect_write_pipe(
                lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), open(fd, "wb", 0)
            )
            process._transports.append(writer)
            process.stdin = asyncio.StreamWriter(writer, protocol, None, loop)
    except BaseException:
        process.close()
        await in_thread(started.end)  # nobody else knows of it
        raise
    return process


async def finish(
    process: Process, input: str | bytes | None, timeout: float | None, kill: Callable[[], object], text: Text
) -> tuple[Any, Any]:
    """Feed the command, collect its output and decode it. On any error the command is killed.

    Raises:
        TimeoutExpired: with all output up to then.
    """
    try:
        *found, late = await process.collect(text.encoded(input or b""), timeout, kill)
    except BaseException:
        kill()
        raise
    finally:
        process.close()
    out, err = (None if data is None else text.decoded(data) for data in found)
    if late:
        assert timeout is not None
        raise TimeoutExpired(process.args, timeout, out, err)
    return out, err


async def _gather(reader: asyncio.StreamReader, parts: list[bytes]) -> None:
    while data := await reader.read(READ_BYTES):
        parts.append(data)


async def _feed(writer: asyncio.StreamWriter, data: bytes) -> None:
    try:
        writer.write(data)
        await writer.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass
    finally:
        writer.close()
