"""Open the context, the Dockerfile and the named contexts of a build."""

from __future__ import annotations

import os
from contextlib import ExitStack
from threading import Lock

from minibox.build.cache import context_memory
from minibox.build.context.context import Context
from minibox.build.context.location import open_location, read_dockerfile, temporary_directory
from minibox.errors import BuildError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from minibox.build.context.location import Location
    from minibox.build.context.patterns import Patterns
    from minibox.build.options import BuildOptions

IMAGE, LAYOUT = "docker-image://", "oci-layout://"


class Contexts:
    """The open contexts of a build; use it in a ``with`` statement.

    Attributes:
        dockerfile, dockerfile_name: the content of the Dockerfile, and what errors call it.
        identity: tells the Dockerfile from others: see `minibox.build.history`.
        main: the context.
        ignored: what isn't part of it.
    """

    def __init__(self, options: BuildOptions, root: str, stdin: BinaryIO | None) -> None:
        """Open them.

        Raises:
            BuildError: one can't be read.
            UsageError: standard input is asked for twice, or a named context is malformed.
        """
        if options.context == "-" and options.file == "-":
            raise UsageError("the context and the Dockerfile can't both come from standard input")
        self._root, self._stdin = root, stdin
        self._stack, self._lock = ExitStack(), Lock()
        self._named: dict[str, Context] = {}
        self._images: dict[str, str] = {}
        try:
            location = self._stack.enter_context(open_location(options.context, stdin, root, os.environ))
            text = read_dockerfile(location, options.file, stdin)
            self.dockerfile, self.dockerfile_name, self.ignored = text.content, text.name, text.ignored
            place = location.directory if location.is_local else options.context
            self.identity = f"{place} {os.path.abspath(options.file) if options.file else text.name}"
            self.main = self._open(location, text.ignored, "the context")
            for name, where in options.contexts:
                self._add(name, where)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Contexts:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def named(self, name: str) -> Context | None:
        """A named context that has files; None if it is an image."""
        return self._named.get(name)

    def image_of(self, name: str) -> str:
        """The image that a named context means.

        Raises:
            BuildError: it has files.
        """
        if name not in self._images:
            raise BuildError(f"the context {name!r} is a directory: FROM needs an image", f"{name}={IMAGE}IMAGE")
        return self._images[name]

    def temporary(self) -> str:
        """Make a directory that goes with the build. Any thread may call this."""
        with self._lock:
            return self._stack.enter_context(temporary_directory(self._root))

    def opened(self, directory: str, what: str) -> Context:
        """Open a directory of `temporary` as a context."""
        with self._lock:
            return self._stack.enter_context(Context(directory, None, what=what))

    def _add(self, name: str, where: str) -> None:
        if where.startswith(LAYOUT):
            raise UsageError(f"--build-context {name}={where}: {LAYOUT} is not supported", "minibox load -i PATH")
        if where.startswith(IMAGE):
            self._images[name] = where.removeprefix(IMAGE)
            return
        location = self._stack.enter_context(open_location(where, self._stdin, self._root, os.environ))
        ignored = read_ignored(location)
        self._named[name] = self._open(location, ignored, f"the context {name!r}")

    def _open(self, location: Location, ignored: Patterns | None, what: str) -> Context:
        memory = context_memory(self._root, location.directory) if location.is_local else ""
        return self._stack.enter_context(Context(location.directory, ignored, memory=memory, what=what))


def read_ignored(location: Location) -> Patterns | None:
    """Read the ignore file of a named context."""
    from minibox.base.files import read_file
    from minibox.build.context.location import DOCKERFILE_BYTES_MAX, IGNORE_FILE
    from minibox.build.context.patterns import read_ignore_file

    try:
        return read_ignore_file(read_file(f"{location.directory}/{IGNORE_FILE}", DOCKERFILE_BYTES_MAX), IGNORE_FILE)
    except FileNotFoundError:
        return None
