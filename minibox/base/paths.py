"""Paths of the caller."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.errors import MiniboxError


def absolute(path: str) -> str:
    """``path`` from the root directory on, normalised in text only, as a shell's ``cd -L`` would.

    Raises:
        MiniboxError: as `from_root`.
    """
    return os.path.normpath(from_root(path))


def from_root(path: str, cwd: str | None = None) -> str:
    """``path`` from the root directory on, else as it is: what `absolute` does to ``link/..`` leads elsewhere.

    Args:
        cwd: where it begins; "" for a directory that was removed, None for that of this process.

    Raises:
        MiniboxError: it begins at a working directory that was removed: then it leads nowhere.
    """
    if os.path.isabs(path):
        return path
    cwd = working_directory() if cwd is None else cwd
    if not cwd:
        raise _lost(path)
    return os.path.join(cwd, path)


def working_directory() -> str:
    """That of this process; "" when it was removed, or can't be reached from the root directory."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def search_path() -> list[str]:
    """`sys.path`, absolute; without what begins at a working directory that is not there any more."""
    import sys

    cwd = working_directory()
    return [os.path.normpath(os.path.join(cwd, entry)) for entry in sys.path if cwd or os.path.isabs(entry)]


def _lost(path: str) -> MiniboxError:
    from minibox.errors import MiniboxError

    return MiniboxError(
        f"find {path}: the working directory is not there any more",
        "it was removed, or can't be reached: cd to another one, or give an absolute path",
    )
