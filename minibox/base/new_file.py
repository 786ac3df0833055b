"""A file that is written piece by piece, and is there once it is whole: `save -o`, `export -o`."""

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
    """A new file for a ``with`` block, which is at ``path`` once the block has succeeded, and not before.

    Its permissions are the umask's. Nothing that others have put beside ``path`` is written to.

    Raises:
        OSError: with the path, and nothing is left beside it.
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
