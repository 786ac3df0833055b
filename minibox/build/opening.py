"""Open the context, the Dockerfile and the named contexts of a build."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

from minibox.base.files import FileTooLarge, read_file
from minibox.build.cache import context_memory
from minibox.build.context.context import Context
from minibox.build.context.patterns import read_ignore_file
from minibox.errors import BuildError, UsageError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.build.context.patterns import Patterns
    from minibox.build.options import BuildOptions

NAMES = ("Dockerfile", "Containerfile")
DOCKERFILE_BYTES_MAX = 16 << 20
IMAGE = "docker-image://"


class Contexts:
    """The open contexts of a build; use it in a ``with`` statement.

    Attributes:
        dockerfile, dockerfile_name: the content of the Dockerfile, and what errors call it.
        main: the context.
    """

    def __init__(self, options: BuildOptions, root: str) -> None:
        """Open them.

        Raises:
            BuildError: one can't be read.
        """
        self._root, self._stack = root, ExitStack()
        self._named: dict[str, Context] = {}
        self._images: dict[str, str] = {}
        directory = options.context
        if not os.path.isdir(directory):
            raise BuildError(f"context {directory!r} is not a directory", "give a directory that exists")
        self.dockerfile, self.dockerfile_name, path = self._dockerfile(options, directory)
        self.main = self._open(directory, self._ignored(directory, path))
        for name, place in options.contexts:
            if place.startswith(IMAGE):
                self._images[name] = place.removeprefix(IMAGE)
            elif os.path.isdir(place):
                self._named[name] = self._open(place, self._ignored(place, ""), f"the context {name!r}")
            else:
                raise UsageError(f"--build-context {name}={place}: no such directory", f"or write {IMAGE}IMAGE")

    def __enter__(self) -> Contexts:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def named(self, name: str) -> Context | None:
        """A named context that is a directory; None if it is an image."""
        return self._named.get(name)

    def image_of(self, name: str) -> str:
        """The image that a named context means.

        Raises:
            BuildError: it is a directory.
        """
        if name not in self._images:
            raise BuildError(f"the context {name!r} is a directory: FROM needs an image", f"{name}={IMAGE}IMAGE")
        return self._images[name]

    def _open(self, directory: str, ignored: Patterns | None, what: str = "the context") -> Context:
        memory = context_memory(self._root, directory)
        return self._stack.enter_context(Context(os.path.abspath(directory), ignored, memory=memory, what=what))

    def _dockerfile(self, options: BuildOptions, directory: str) -> tuple[bytes, str, str]:
        """Read the Dockerfile; return its content, its name and its path."""
        if options.file == "-":
            return sys.stdin.buffer.read(), "Dockerfile", ""
        candidates = [options.file] if options.file else [f"{directory}/{name}" for name in NAMES]
        for path in candidates:
            try:
                return read_file(path, DOCKERFILE_BYTES_MAX), os.path.basename(path), path
            except FileNotFoundError:
                continue
            except FileTooLarge:
                raise BuildError(f"{path} is too large for a Dockerfile") from None
            except OSError as error:
                raise BuildError(f"read {path}: {kernel_says(error)}") from error
        if options.file:
            raise BuildError(f"there is no {options.file}", "--file names the Dockerfile, relative to where you are")
        raise BuildError(f"there is no Dockerfile in {directory}", "make one, or name it with --file")

    def _ignored(self, directory: str, dockerfile: str) -> Patterns | None:
        """Read the ignore file: NAME.dockerignore beside the Dockerfile, else the context's own."""
        candidates = [f"{dockerfile}.dockerignore"] if dockerfile else []
        for path in (*candidates, f"{directory}/.dockerignore"):
            try:
                return read_ignore_file(read_file(path, DOCKERFILE_BYTES_MAX), os.path.basename(path))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise BuildError(f"read {path}: {kernel_says(error)}") from error
        return None


def open_contexts(options: BuildOptions, root: str) -> Contexts:
    """Open the contexts of a build; see `Contexts`."""
    return Contexts(options, root)
