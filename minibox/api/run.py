"""`minibox.run`: a command in a container of its own."""

from __future__ import annotations

from typing import Any, overload

from minibox.api.options import ContainerOptions, run_options, text_of
from minibox.api.place import place
from minibox.api.process import PIPE, Popen, Text, finish, last_words
from minibox.engine.completed import CompletedRun
from minibox.engine.embedded import Embedded
from minibox.engine.interrupts import uninterrupted
from minibox.engine.tidying import later

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from typing import Unpack

    from minibox.api.keywords import RunAsBytes, RunAsGiven, RunAsText
    from minibox.api.place import Place
    from minibox.api.process import Stream
    from minibox.engine.options import RunOptions
    from minibox.image.resolved import ResolvedImage

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


class PullFirst(Exception):
    """The image has to be pulled."""


class Owner:
    """Closes a container when its block is left, whatever may interrupt that; when nobody has this object any more, too.

    Attributes:
        box: the container.
    """

    def __init__(
        self,
        options: RunOptions,
        where: Place,
        close: Callable[[Embedded], None] = Embedded.close,
        image: ResolvedImage | None = None,
    ) -> None:
        """Nothing is done yet; ``image`` as of `Embedded`."""
        self._close = close

        def pull(image: str, platform: str) -> None:
            raise PullFirst

        self.box = Embedded(
            options,
            root=where.root,
            runroot=where.runroot,
            storage_driver=where.storage_driver,
            pull=pull,
            image=image,
        )

    def begin(self, start: Callable[[], object]) -> None:
        """Start it, all of it or not at all; its image is pulled before, where it has to be."""
        try:
            uninterrupted(start)
        except PullFirst:
            self.box.pull()
            uninterrupted(start)

    def close(self) -> None:
        if self.box.is_ours():
            uninterrupted(lambda: self._close(self.box))

    def __enter__(self) -> Embedded:
        return self.box

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


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
    command: Popen[Any] = Popen(wanted.command, Text(text, encoding, errors))
    wired = streams(input, stdin, stdout, stderr, capture_output)
    owner = Owner(wanted, where, lambda box: box.close(later))
    with owner as container:
        try:
            owner.begin(lambda: command.begin(container.start, wired))
            out, err = finish(command, input, timeout, lambda: container.timed_out(timeout or 0.0))
        finally:
            command.close()
        code = command.wait()

        def completed() -> CompletedRun[Any]:
            verdict, usage = container.verdict(last_words(out, err)), container.usage()
            return CompletedRun(wanted.command, code, out, err, verdict, usage)

        done = uninterrupted(completed)
    if check:
        done.check_returncode()
    return done
