"""A file that is written piece by piece, and appears only when it is complete: `save -o`, `export -o`."""

from __future__ import annotations

import os
from contextlib import contextmanager

from minibox.base.files import WRITE_NEW, discard, temporary_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO


@contextmanager
def written_whole(path: str) -> Iterator[BinaryIO]:
    """Give a ``with`` block a new file, and rename it to ``path`` when the block succeeds.

    The umask decides its permissions. Files that others put beside ``path`` are never written to.

    Raises:
        OSError: with the path. No temporary file is left.
    """
    temporary = temporary_path(*os.path.split(path))
    try:
        with open(os.open(temporary, WRITE_NEW, 0o666), "wb") as file:
            yield file
        os.rename(temporary, path)
    except BaseException as error:
        discard(temporary)
        if isinstance(error, OSError) and error.filename == temporary:
            error.filename = path
        raise
