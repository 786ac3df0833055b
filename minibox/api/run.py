"""`minibox.run`: run a command in a new container."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from minibox.api.arguments import OPTIONS, checked
from minibox.api.options import ContainerOptions, run_options, text_of
from minibox.api.place import place
from minibox.api.process import PIPE, Popen, Text, finish, last_words
from minibox.engine.container.embedded import Embedded
from minibox.engine.files.background_removal import later
from minibox.engine.host.interrupts import uninterrupted
from minibox.engine.process.completed import CompletedRun
from minibox.errors import WrongArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from typing import Unpack

    from minibox.api.keywords import RunAsBytes, RunAsGiven, RunAsText
    from minibox.api.place import Place
    from minibox.api.process import Stream
    from minibox.engine.spec.options import RunOptions
    from minibox.image.layout.image import ResolvedImage
    from minibox.image.reference import ImageName

    #: A command: a list of words, not one string.
    Words = Iterable[str | os.PathLike[str]]

T = TypeVar("T")


def words(args: Words | None) -> tuple[str, ...]:
    """Return the words of a command; () for None.

    Raises:
        WrongArgument: a word isn't a string or a path.
    """
    return tuple(text_of(word, f"word {number} of the command") for number, word in enumerate(args or ()))


def streams(
    input: object, stdin: Stream, stdout: Stream, stderr: Stream, capture_output: bool
) -> tuple[Stream, Stream, Stream]:
    """Combine the stream arguments of `subprocess.run` into stdin, stdout and stderr.

    Raises:
        WrongArgument: two of them contradict each other.
    """
    if input is not None:
        if stdin is not None:
            raise WrongArgument("stdin can't be given with input", "leave one of them out")
        stdin = PIPE
    if capture_output:
        if stdout is not None or stderr is not None:
            raise WrongArgument(
                "stdout and stderr can't be given with capture_output", "give PIPE for the one you want"
            )
        stdout = stderr = PIPE
    return stdin, stdout, stderr


class PullFirst(Exception):
    """The image must be pulled before the container can start."""


class Owner:
    """Closes a container at the end of a ``with`` block, even if interrupted, or when this object is collected.

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
        """Nothing is started yet. ``image`` is passed to `Embedded`."""
        self._close = close

        def pull(image: ImageName, platform: str) -> None:
            raise PullFirst

        self.box = Embedded(where.home, options, storage_driver=where.storage_driver, pull=pull, image=image)

    def begin(self, start: Callable[[], object]) -> None:
        """Call ``start`` without interruption, so the container starts fully or not at all. Pulls the image if needed."""
        try:
            uninterrupted(start)
        except PullFirst:
            self.box.pull()
            uninterrupted(start)

    def close_after(self, work: Callable[[], T]) -> T:
        """Call ``work`` and close the container, both without interruption; what ``work`` returned."""

        def both() -> T:
            try:
                return work()
            finally:
                self._close(self.box)

        return uninterrupted(both)

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


@checked(OPTIONS)
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
    """Run a command in a new container, wait until it has ended, and remove the container. Works like `subprocess.run`.

    By default the container has no network. It dies with this process, however that ends, and leaves nothing behind.
    When this returns, its processes and limits are gone; its files are removed a moment later, at the latest when this
    process ends.

    Args:
        image: the image's name, as for ``minibox run``. It is pulled if it is missing, except ``base``, which minibox
            makes itself.
        args: the command, a list of words; the image's entrypoint, if any, comes first. None runs the image's command.
        input, stdin, stdout, stderr, capture_output, text, encoding, errors: as for `subprocess.run`. By default the
            command uses this process's streams. Text is UTF-8 unless ``encoding`` says otherwise.
        timeout: seconds after which the container is killed.
        check: raise `CalledProcessError` if the command fails.
        options: see `ContainerOptions`.

    Raises:
        CommandNotFound, CommandNotExecutable: the command can't be run.
        TimeoutExpired: the timeout expired. The error has the output so far.
        CalledProcessError: the command failed and ``check`` is true.
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

        def completed() -> CompletedRun[Any]:
            code = command.wait()
            verdict, usage = container.verdict(last_words(out, err)), container.usage()
            return CompletedRun(wanted.command, code, out, err, verdict, usage)

        done = owner.close_after(completed)
    if check:
        done.check_returncode()
    return done
