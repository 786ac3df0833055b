"""Where a context is: a directory, an archive from standard input or a server, a git repository. And its Dockerfile."""

from __future__ import annotations

import os
from contextlib import contextmanager

from minibox.base.files import FileTooLarge, NotRegularFile, closing, read_file
from minibox.build.context.patterns import read_ignore_file
from minibox.errors import BuildError, MiniboxError, kernel_says
from minibox.image.layer.lock import UNFINISHED, collect_unfinished, lock
from minibox.linux.files import read_in_root
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

    from minibox.build.context.patterns import Patterns

DOCKERFILES = ("Dockerfile", "Containerfile", "dockerfile")
IGNORE_FILE = ".dockerignore"
DOCKERFILE_BYTES_MAX = 16 << 20
URLS = ("http://", "https://")
MAGIC_AT, MAGIC = 257, b"ustar"  # POSIX.1-2017, pax, "ustar Interchange Format"


@record
class Location:
    """An available context.

    Attributes:
        directory: its files.
        name: what messages call it.
        is_local: the user's own directory. Otherwise its files are somebody else's, and gone when the build ends.
        dockerfile: what came instead of a context: a Dockerfile, and no files. Otherwise None.
    """

    directory: str
    name: str
    is_local: bool
    dockerfile: bytes | None = None


@record
class DockerfileText:
    """A Dockerfile before it is parsed.

    Attributes:
        name: what messages call it.
        ignored: what isn't part of the context, by NAME.dockerignore beside it or the context's `.dockerignore`.
    """

    content: bytes
    name: str
    ignored: Patterns | None


@contextmanager
def open_location(text: str, stdin: BinaryIO | None, root: str, environ: Mapping[str, str]) -> Iterator[Location]:
    """Make a context available for a ``with`` block.

    Args:
        text: a directory; ``-``: an archive, or a Dockerfile, from ``stdin``; a URL of an archive, of a Dockerfile, or
            of a git repository.
        root: the root of minibox's files: what has to be unpacked is put there.

    Raises:
        BuildError: it isn't there, can't be reached, or is damaged.
    """
    if text != "-" and os.path.isdir(text):
        yield Location(os.path.abspath(text), ascii(text), True)
        return
    from minibox.build.context import git

    repository = git.parse(text)
    if text == "-":
        if stdin is None:
            raise BuildError("the context is standard input, but there is none", "give a directory")
        with temporary_directory(root) as directory:
            yield _of_stream(stdin, directory, "the context on standard input")
    elif repository:
        with temporary_directory(root) as directory:
            git.check_out(repository, directory, environ)
            yield Location(git.subdirectory_of(repository, directory), text, False)
    elif text.startswith(URLS):
        from minibox.build.context.download import download

        with temporary_directory(root) as directory:
            path, files = f"{directory}/download", f"{directory}/files"
            os.mkdir(files, 0o700)
            download(text, path, environ)
            with open(path, "rb", buffering=0) as file:
                yield _of_stream(file, files, text)
    else:
        why = "is not a directory" if os.path.exists(text) else "doesn't exist"
        raise BuildError(f"the context {ascii(text)} {why}", "give a directory, '-' for standard input, or a URL")


@contextmanager
def temporary_directory(root: str) -> Iterator[str]:
    """Make a directory for a ``with`` block. If we are killed, the next one or `prune` removes it."""
    os.makedirs(f"{root}/tmp", 0o700, exist_ok=True)
    collect_unfinished(f"{root}/tmp")
    claim = None
    while claim is None:  # somebody may have taken it for an abandoned one
        path = f"{root}/tmp/{UNFINISHED}{os.urandom(8).hex()}"
        os.mkdir(path, 0o700)
        claim = lock(path)
    try:
        yield path
    finally:
        claim.give_up()


def read_dockerfile(location: Location, file: str, stdin: BinaryIO | None) -> DockerfileText:
    """Read a build's Dockerfile, and what is ignored.

    Args:
        file: its path: relative to where the user is, or for a context that isn't local within the context; ``-`` for
            ``stdin``; "" for the context's own.

    Raises:
        BuildError: there is none, or it can't be read.
    """
    if file == "-" or location.dockerfile is not None:
        content = _whole(stdin) if location.dockerfile is None else location.dockerfile
        return DockerfileText(content, "Dockerfile", _ignored(location, ""))
    if not file:
        for name in DOCKERFILES:
            if (found := _of_context(location, name)) is not None:
                return DockerfileText(found, name, _ignored(location, name))
        raise BuildError(f"there is no Dockerfile in {location.name}", "name it with --file")
    if not location.is_local:
        found = _of_context(location, file)
        if found is None:
            raise BuildError(f"there is no {ascii(file)} in {location.name}")
        return DockerfileText(found, os.path.basename(file), _ignored(location, file))
    try:
        content = read_file(file, DOCKERFILE_BYTES_MAX)
    except OSError as error:
        hint = "--file is relative to where you are" if isinstance(error, FileNotFoundError) else None
        raise BuildError(f"read the Dockerfile {ascii(file)}: {kernel_says(error)}", hint) from error
    return DockerfileText(content, os.path.basename(file), _ignored(location, file))


def _ignored(location: Location, file: str) -> Patterns | None:
    """Read the ignore file: the Dockerfile's own, else the context's."""
    named = f"{file}{IGNORE_FILE}" if file else ""
    if named and location.is_local and os.path.dirname(file):
        try:
            return read_ignore_file(read_file(named, DOCKERFILE_BYTES_MAX), os.path.basename(named))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise BuildError(f"read {ascii(named)}: {kernel_says(error)}") from error
    for name in (named, IGNORE_FILE):
        if name and (content := _of_context(location, name)) is not None:
            return read_ignore_file(content, os.path.basename(name))
    return None


def _of_context(location: Location, name: str) -> bytes | None:
    """Return the content of a file of the context; None if there is none. Links lead to where they do in the context,
    unless it is the user's own."""
    try:
        if location.is_local:
            return read_file(f"{location.directory}/{name}", DOCKERFILE_BYTES_MAX)
        with closing(os.open(location.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
            return read_in_root(fd, name, DOCKERFILE_BYTES_MAX)
    except FileNotFoundError:
        return None
    except (NotRegularFile, FileTooLarge) as error:
        raise BuildError(f"{ascii(name)} in {location.name}: {error.strerror}") from None
    except OSError as error:
        raise BuildError(f"read {ascii(name)} in {location.name}: {kernel_says(error)}") from error


def _whole(stdin: BinaryIO | None) -> bytes:
    if stdin is None:
        raise BuildError("the Dockerfile is standard input, but there is none", "name a file with --file")
    content = stdin.read(DOCKERFILE_BYTES_MAX + 1)
    if len(content) > DOCKERFILE_BYTES_MAX:
        raise BuildError(f"the Dockerfile on standard input is larger than {DOCKERFILE_BYTES_MAX} bytes")
    return content


class _Peeked:
    """A stream whose beginning was read already."""

    def __init__(self, start: bytes, file: BinaryIO) -> None:
        self._start, self._file = start, file

    def read(self, size: int, /) -> bytes:
        start, self._start = self._start[:size], self._start[size:]
        return start or self._file.read(size)


def _of_stream(file: BinaryIO, directory: str, name: str) -> Location:
    """Unpack an archive; or take the stream for a Dockerfile, if it isn't one."""
    from minibox.image.layer.compression import MAGIC_BYTES, READ_BYTES, compression_of
    from minibox.image.layer.tar import BLOCK

    start = b""
    while len(start) < BLOCK and (data := file.read(READ_BYTES)):
        start += data
    stream = _Peeked(start, file)
    if not compression_of(start[:MAGIC_BYTES]) and not is_tar(start):
        content = b""
        while len(content) <= DOCKERFILE_BYTES_MAX and (data := stream.read(READ_BYTES)):
            content += data
        if b"\0" in content or len(content) > DOCKERFILE_BYTES_MAX:
            raise BuildError(f"{name} is neither a tar archive nor a Dockerfile")
        return Location(directory, name, False, content)
    try:
        _unpack(stream, directory)
    except MiniboxError as error:
        raise BuildError(f"unpack {name}: {error}", error.hint) from error
    except OSError as error:
        where = f" {ascii(os.path.basename(error.filename))}" if error.filename else ""
        raise BuildError(f"unpack {name}{where}: {kernel_says(error)}") from error
    return Location(directory, name, False)


def is_tar(start: bytes) -> bool:
    """Tell whether a plain file begins like a tar; the form before ustar is told by its checksum."""
    from minibox.image.layer.tar import BLOCK

    block = start[:BLOCK]
    if block[MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC:
        return True
    if len(block) < BLOCK or not block[0]:
        return False
    try:
        expected = int(block[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    return sum(block[:148] + b" " * 8 + block[156:]) == expected


def _unpack(stream: _Peeked, directory: str) -> None:
    from minibox.image.layer.compression import Pump
    from minibox.image.layer.placer import Base, Placer
    from minibox.image.layer.tar import TarReader

    owner = (os.geteuid(), os.getegid())
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with Placer(Base(fd, directory), owner, privileged=True) as placer, Pump(stream) as pump:
        reader = TarReader(pump.read_chunk)
        while (entry := reader.next()) is not None:
            placer.place(entry, reader.content())
        placer.finish()
