"""Write an archive to a new file, or to stdout unless that is a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from minibox.base.new_file import written_whole
from minibox.errors import MiniboxError, UsageError, kernel_says, trying


@contextmanager
def archive_output(what: str, path: str | None) -> Iterator[BinaryIO]:
    """Open ``path`` for an archive, or stdout for None or ``-``. The file appears only after the block has succeeded.

    Args:
        what: the command, for the error.

    Raises:
        UsageError: stdout is a terminal.
        MiniboxError: the file can't be written.
    """
    if path is None or path == "-":
        try:
            yield archive_stdout(what, "use -o FILE, or redirect it")
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise  # `main` handles it: it isn't an error if the reader has left
        except OSError as error:
            raise MiniboxError(f"{what}: write to stdout: {kernel_says(error)}") from error
        return
    # Other files, such as /dev/null or a pipe, are written directly.
    is_file = os.path.isfile(path) or not os.path.lexists(path)
    with trying(MiniboxError, f"{what}: write {path}"):
        with written_whole(path) if is_file else open(path, "wb") as file:
            yield file


def archive_stdout(what: str, hint: str) -> BinaryIO:
    """Return stdout for an archive.

    Raises:
        UsageError: stdout is a terminal.
    """
    if sys.stdout.isatty():
        raise UsageError(f"{what}: archives are not written to a terminal", hint)
    return sys.stdout.buffer
