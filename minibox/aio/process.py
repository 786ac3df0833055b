"""A command that runs in a sandbox, as `asyncio.subprocess.Process` has it."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Any

from minibox.api.process import SIGTERM
from minibox.errors import TimeoutExpired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.api.process import Ends, Text
    from minibox.engine.started import Started

READ_BYTES = 1 << 16
SURVIVORS_S = 0.1  # that a command which was killed may leave what it wrote in its pipes


class Process:
    """A command that runs; `Sandbox.popen` makes one.

    Attributes:
        args: the command.
        stdin: a writer of its input; None where that is no pipe.
        stdout, stderr: readers of its output; None where they are no pipes.
    """

    def __init__(self, args: tuple[str, ...], started: Started) -> None:
        """Not by users: `connected` makes one."""
        self.args = args
        self._started = started
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._ended: asyncio.Future[int] | None = None

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or the negative number of the signal that ended it; None while nobody has waited for it."""
        return self._started.returncode

    async def wait(self) -> int:
        """Wait for its end; its return code."""
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
        """Write ``input``, read until the end of its output, and wait for its end.

        Returns:
            What it wrote to standard output and standard error; None for what is no pipe.
        """
        out, err, _ = await self.collect(input or b"", None)
        return out, err

    async def collect(
        self, data: bytes, timeout_s: float | None, kill: Callable[[], object] | None = None
    ) -> tuple[bytes | None, bytes | None, bool]:
        """As `communicate`; whatever happens, ``kill`` ends it when it isn't waited for any more.

        Returns:
            The third is whether it took longer than ``timeout_s``: then the others are what it had written.
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

    def send_signal(self, signal: int) -> None:
        """Send a signal; when it has ended that is no error."""
        self._started.send_signal(signal)

    def terminate(self) -> None:
        """SIGTERM."""
        self._started.send_signal(SIGTERM)

    def kill(self) -> None:
        """SIGKILL, for its children too, those that have not begun a session of their own."""
        self._started.kill_session()

    def close(self) -> None:
        """Close its pipes; the command goes on."""
        for transport in self._transports:
            transport.close()
        self._transports.clear()

    async def __aenter__(self) -> Process:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close its input, and wait for its end; when that is cancelled it is killed."""
        try:
            if self.stdin:
                self.stdin.close()
            await self.wait()
        except asyncio.CancelledError:
            self.kill()
            raise
        finally:
            self.close()


async def connected(args: tuple[str, ...], started: Started, ends: Ends) -> Process:
    """The process of a command that runs, with its pipes watched by the loop."""
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
        raise
    return process


async def finish(
    process: Process, input: str | bytes | None, timeout: float | None, kill: Callable[[], object], text: Text
) -> tuple[Any, Any]:
    """`Process.collect`, in text where that is wanted, and whatever goes wrong, the command is no more.

    Raises:
        TimeoutExpired: with all that it has written.
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
