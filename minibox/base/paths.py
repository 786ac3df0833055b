"""Make the caller's paths absolute, and find the package's own files."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.errors import MiniboxError


def absolute(path: str) -> str:
    """Make ``path`` absolute and normalise its text, like a shell's ``cd -L``.

    Raises:
        MiniboxError: like `from_root`.
    """
    return os.path.normpath(from_root(path))


def from_root(path: str, cwd: str | None = None) -> str:
    """Make ``path`` absolute and change nothing else. `absolute` would lead elsewhere for ``link/..``.

    Args:
        cwd: where a relative path begins; None for this process's working directory, "" if that was removed.

    Raises:
        MiniboxError: the path is relative, and the working directory was removed.
    """
    if os.path.isabs(path):
        return path
    cwd = working_directory() if cwd is None else cwd
    if not cwd:
        raise _lost(path)
    return os.path.join(cwd, path)


def working_directory() -> str:
    """Return this process's working directory; "" if it was removed or can't be reached from the root directory."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def search_path() -> list[str]:
    """Return `sys.path` with absolute entries; without relative ones if the working directory was removed."""
    import sys

    cwd = working_directory()
    return [os.path.normpath(os.path.join(cwd, entry)) for entry in sys.path if cwd or os.path.isabs(entry)]


def package_directory() -> str:
    """Return the directory of the package minibox; the one above it leads to minibox on `sys.path`."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _lost(path: str) -> MiniboxError:
    from minibox.errors import MiniboxError

    return MiniboxError(
        f"find {path}: the working directory was removed or can't be reached",
        "cd to another directory, or give an absolute path",
    )
