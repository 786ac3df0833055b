"""Write a picture or a page to a file that the user names."""

from __future__ import annotations

from minibox.base.files import replace_file
from minibox.errors import UsageError, trying


def write_picture(path: str, text: str) -> None:
    """Write ``text`` to ``path``, which is replaced.

    Raises:
        UsageError: it can't be written.
    """
    with trying(UsageError, f"write {path}"):
        replace_file(path, text.encode("utf-8", "replace"), mode=0o644)
