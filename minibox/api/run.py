"""`minibox.run`: a command in a container of its own."""

from __future__ import annotations

from typing import Any, overload

from minibox.api.options import ContainerOptions, place, run_options, text_of
from minibox.api.process import PIPE, Ends, Popen, Text, finish, last_words
from minibox.engine.completed import CompletedRun
from minibox.engine.embedded import Embedded
from minibox.engine.tidying import later

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from typing import Unpack

    from minibox.api.keywords import RunAsBytes, RunAsGiven, RunAsText
    from minibox.api.process import Stream

    #: A command: not one text, but its words.
    Words = Iterable[str | os.PathLike[str]]


def words(args: Words | None) -> tuple[str, ...]:
    """The words of a command; () for none.

    Raises:
        TypeError: it is one text, which would have to be split: no shell is asked to; or a word is no text.
    """
    if isinstance(args, (str, bytes)):
        raise TypeError(f'a command is a list of words: ["sh", "-c", {args!r}]')
    return tuple(text_of(word, f"word {number} of the command") for number, word in enumerate(args or ()))


def streams(
    input: object, stdin: Stream, stdout: Stream, stderr: Stream, capture_output: bool
) -> tuple[Stream, Stream, Stream]:
    """What the arguments of `subprocess.run` mean.

    Raises:
        ValueError: two of them contradict each other.
    """
    if input is not None:
        if stdin is not None:
            raise ValueError("stdin and input can't both be given")
        stdin = PIPE
    if capture_output:
        if stdout is not None or stderr is not None:
            raise ValueError("stdout and stderr can't be given with capture_output")
        stdout = stderr = PIPE
    return stdin, stdout, stderr


@overload
def run(image: str, args: Words | None = None, **keywords: Unpack[RunAsText]) -> CompletedRun[str]: ...


@overload
def run(image: str, args: Words | None = None, **keywords: Unpack[RunAsBytes]) -> CompletedRun[bytes]: ...


@overload
def run(image: str, args: Words | None = None, **keywords: Unpack[RunAsGiven]) -> CompletedRun[Any]: ...


def run(
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
    """Run a command in a new container, wait for its end, and remove the container: `subprocess.run`, contained.

    By default it has no network. The container dies with this process, whatever kills it, and leaves nothing. Its
    processes and limits are gone when this returns, its files a moment later, or at this process's end.

    Args:
        image: its name, as of ``minibox run``; pulled when it isn't there. ``base`` is made without a network.
        args: the command, behind the image's entrypoint if that has one; None: the image's own.
        input, stdin, stdout, stderr, capture_output, text, encoding, errors: as of `subprocess.run`: a stream that
            isn't given is this process's own. Text is UTF-8 unless ``encoding`` says otherwise.
        timeout: seconds after which it is killed.
        check: it must succeed.
        options: see `ContainerOptions`.

    Raises:
        CommandNotFound, CommandNotExecutable: the command is at fault.
        TimeoutExpired: its time was over; with what it has written so far.
        CalledProcessError: it failed, and ``check`` was given.
        MiniboxError: anything else.
    """
    where = place(options)
    wanted = run_options(image, words(args), options)
    ends = Ends(*streams(input, stdin, stdout, stderr, capture_output))
    try:
        container = Embedded(wanted, root=where.root, runroot=where.runroot, storage_driver=where.storage_driver)
        try:
            started = container.start(ends.outside)
            command: Popen[Any] = Popen(wanted.command, started, ends, Text(text, encoding, errors))
            out, err = finish(command, input, timeout, lambda: container.timed_out(timeout or 0.0))
            code, verdict = command.wait(), container.verdict(last_words(out, err))
            done = CompletedRun(wanted.command, code, out, err, verdict, container.usage())
        finally:
            container.close(later)
    finally:
        ends.close()
    if check:
        done.check_returncode()
    return done
