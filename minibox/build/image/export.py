"""Where the result of a build goes besides the store: a directory, a tar of the files, or an archive of the image."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from minibox.errors import BuildError, UsageError, kernel_says
from minibox.image.reference import parse as parse_reference
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from minibox.base.home import Home
    from minibox.build.image.make import Made
    from minibox.build.steps.step import Place
    from minibox.image.layout.layout import Descriptor, Layout

TYPES = ("image", "local", "tar", "oci", "docker", "registry")
STANDARD = "-"
OPTIONS = {
    "image": ("name", "push", "rewrite-timestamp", "unpack"),
    "local": ("dest",),
    "tar": ("dest",),
    "oci": ("dest", "name", "rewrite-timestamp", "tar"),
    "docker": ("dest", "name", "rewrite-timestamp"),
    "registry": ("name", "rewrite-timestamp"),
}


@record
class Output:
    """One value of --output.

    Attributes:
        destination: a directory or a file; ``-`` is standard output; "" for none.
        name: a name for the image; "" for those of --tag.
        push: push the image to its registry.
        rewrites_times: files get no later time than SOURCE_DATE_EPOCH. With that, they never do.
    """

    type: str
    destination: str = ""
    name: str = ""
    push: bool = False
    rewrites_times: bool = False


def parse_output(text: str) -> Output:
    """Parse a value of --output: ``DIR``, ``-``, or ``type=TYPE,dest=PATH,...``.

    Raises:
        UsageError: it is malformed, or asks for something that minibox doesn't have.
    """
    if text == STANDARD:
        return Output("tar", STANDARD)
    if "=" not in text:
        return Output("local", text)
    fields = dict(word.partition("=")[::2] for word in text.split(","))
    kind = fields.pop("type", "")
    if kind not in TYPES:
        raise UsageError(f"--output {text}: unknown type {kind!r}", f"one of {', '.join(TYPES)}")
    for name, value in fields.items():
        if name not in OPTIONS[kind]:
            raise UsageError(
                f"--output {text}: type {kind} has no option {name!r}", f"it has {', '.join(OPTIONS[kind])}"
            )
        if name in ("push", "rewrite-timestamp") and value not in ("true", "false"):
            raise UsageError(f"--output {text}: {name} is true or false")
        if name == "tar" and value != "true":
            raise UsageError(f"--output {text}: only tar=true is supported", "unpack the archive")
    destination = fields.get("dest", "")
    if kind in ("tar", "oci"):
        destination = destination or STANDARD
    if kind == "local" and not destination:
        raise UsageError(f"--output {text}: it needs dest=PATH")
    if kind == "local" and destination == STANDARD:
        raise UsageError(f"--output {text}: a directory can't go to standard output", "type=tar,dest=-")
    push = kind == "registry" or fields.get("push") == "true"
    return Output(kind, destination, fields.get("name", ""), push, fields.get("rewrite-timestamp") == "true")


def pushed_names(outputs: Sequence[Output], names: Sequence[str]) -> list[str]:
    """Return the names to push: an output's own, or else all ``names`` of the image."""
    own = [str(parse_reference(each.name)) for each in outputs if each.push and each.name]
    everything = any(each.push and not each.name for each in outputs)
    return list(dict.fromkeys(names if everything else own))


def notices(outputs: Sequence[Output], epoch_s: int | None) -> list[str]:
    """Say what in the outputs has no effect; ``epoch_s`` is SOURCE_DATE_EPOCH."""
    if epoch_s is None and any(each.rewrites_times for each in outputs):
        return ["--output rewrite-timestamp=true has no effect without SOURCE_DATE_EPOCH"]
    return []


def write_files(place: Place, chain: tuple[str, ...], output: Output) -> None:
    """Write the files of a root file system to a directory, as the caller's, or to a tar.

    Raises:
        BuildError: the destination can't be written.
    """
    from minibox.engine.files.tar_copy import receive
    from minibox.engine.files.tree import Directories, Tree
    from minibox.engine.host.user_namespace import Work
    from minibox.image.layer.pack import LayerWriter

    def pack(fd: int) -> None:
        with Directories(place.root) as directories, directories.stack(Tree(place.driver, chain)) as stack:
            with open(fd, "wb", closefd=False) as file:
                writer = LayerWriter(file)
                writer.add_below(stack.root)
                writer.close()

    if output.type == "tar":
        with _opened(output.destination) as file:
            Work(lambda: pack(file.fileno())).result()
            return
    try:
        os.makedirs(output.destination, exist_ok=True)
    except OSError as error:
        raise BuildError(f"write to {output.destination}: {kernel_says(error)}") from error
    reader, writer = os.pipe2(os.O_CLOEXEC)
    packing = Work(lambda: pack(writer))
    os.close(writer)
    root_fd = os.open(output.destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(reader, "rb", buffering=0) as file:
            owner = os.geteuid(), os.getegid()
            receive(root_fd, "/", file, owner, privileged=False, named=False, on_host=True)
    finally:
        os.close(root_fd)
        packing.result()


def write_archive(home: Home, made: Made, names: Sequence[str], output: Output) -> None:
    """Write the image with these names as an archive: an OCI layout, or with Docker's manifest added."""
    from minibox.engine.resources import archives

    form = "oci-archive" if output.type == "oci" else "docker-archive"
    with _opened(output.destination or STANDARD) as file:
        archives.save(home, names or [made.id], file, form=form)


def write_index_archive(layout: Layout, index: Descriptor, names: Sequence[str], output: Output) -> None:
    """Write an index with the images of all its platforms as an archive, an OCI layout."""
    from minibox.image.archive.save import save_index

    with _opened(output.destination) as file:
        save_index(layout, index, names, file)


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Open a destination: a file gets its name once it is complete."""
    if path == STANDARD:
        if sys.stdout.isatty():
            raise UsageError("standard output is a terminal", "send it to a file or a pipe, or give dest=FILE")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    new = f"{path}.{os.getpid()}"
    try:
        file = open(new, "xb")
    except OSError as error:
        raise BuildError(f"write {path}: {kernel_says(error)}") from error
    try:
        with file:
            yield file
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise
