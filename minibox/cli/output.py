"""Where an archive goes: to stdout unless it is a terminal, or to a new file."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from minibox.base.new_file import written_whole
from minibox.errors import MiniboxError, UsageError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO


@contextmanager
def archive_output(what: str, path: str | None) -> Iterator[BinaryIO]:
    """The file ``path``, there when the block has succeeded and not before; stdout for None or ``-``.

    Args:
        what: the command, for the error.

    Raises:
        UsageError: stdout is a terminal, which has no use for an archive.
        MiniboxError: the file can't be written.
    """
    if path is None or path == "-":
        try:
            yield archive_stdout(what, "use -o FILE, or redirect it")
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise  # a reader that left is no error
        except OSError as error:
            raise MiniboxError(f"{what}: write to stdout: {kernel_says(error)}") from error
        return
    # What is no regular file, as /dev/null or a pipe, is written to.
    is_file = os.path.isfile(path) or not os.path.lexists(path)
    try:
        with written_whole(path) if is_file else open(path, "wb") as file:
            yield file
    except OSError as error:
        raise MiniboxError(f"{what}: write {path}: {kernel_says(error)}") from error


def archive_stdout(what: str, hint: str) -> BinaryIO:
    """Stdout for an archive.

    Raises:
        UsageError: it is a terminal.
    """
    if sys.stdout.isatty():
        raise UsageError(f"{what}: an archive is not written to a terminal", hint)
    return sys.stdout.buffer
