"""`minibox.aio.run`: run a command in a new container and await its end."""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack, overload

from minibox.aio.blocking import in_thread, started
from minibox.aio.process import connected, finish
from minibox.api.arguments import OPTIONS, checked
from minibox.api.keywords import RunAsBytes, RunAsGiven, RunAsText
from minibox.api.options import ContainerOptions, run_options
from minibox.api.place import place
from minibox.api.process import Ends, Stream, Text, last_words
from minibox.api.run import streams, words
from minibox.engine.container.embedded import Embedded
from minibox.engine.files.background_removal import later
from minibox.engine.process.command import Command
from minibox.engine.process.completed import CompletedRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.api.run import Words


@overload
async def run(image: str, args: Words | None = None, **keywords: Unpack[RunAsText]) -> CompletedRun[str]: ...


@overload
async def run(image: str, args: Words | None = None, **keywords: Unpack[RunAsBytes]) -> CompletedRun[bytes]: ...


@overload
async def run(image: str, args: Words | None = None, **keywords: Unpack[RunAsGiven]) -> CompletedRun[Any]: ...


@checked(OPTIONS)
async def run(
    image: str,
    args: Words | None = None,
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
    **options: Unpack[ContainerOptions],
) -> CompletedRun[Any]:
    """Like `minibox.run`, with the same arguments and errors. Cancelling it kills and removes the container."""
    where = place(options)
    wanted = run_options(image, words(args), options)
    ends = Ends(*streams(input, stdin, stdout, stderr, capture_output))

    def begin() -> tuple[Embedded, Command]:
        box = Embedded(where.home, wanted, storage_driver=where.storage_driver)
        try:
            return box, box.start(ends.outside)
        except BaseException:
            box.close()
            raise

    try:
        box, command = await started(begin, lambda pair: pair[0].close())
        try:
            process, form = await connected(wanted.command, command, ends), Text(text, encoding, errors)
            out, err = await finish(process, input, timeout, lambda: box.timed_out(timeout or 0.0), form)
            code, verdict = await process.wait(), box.verdict(last_words(out, err))
            done = CompletedRun(wanted.command, code, out, err, verdict, box.usage())
        finally:
            await in_thread(partial(box.close, later))
    finally:
        ends.close()
    if check:
        done.check_returncode()
    return done
