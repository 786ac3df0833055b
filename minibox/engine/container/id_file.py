"""The file that a script reads a container's id from: ``--cidfile``."""

from __future__ import annotations

import os

from minibox.errors import UsageError, kernel_says


def write(path: str, container: str) -> None:
    """Write a container's id to a new file.

    Raises:
        UsageError: it exists, or can't be written.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise UsageError(f"container ID file {path} exists", "remove it, or choose another name") from None
    except OSError as error:
        raise UsageError(f"write container ID file {path}: {kernel_says(error)}") from error
    os.write(fd, container.encode())
    os.close(fd)
