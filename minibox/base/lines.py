"""The lines of a text of others: of a file of the kernel, of /etc, of a program's output."""

from __future__ import annotations


def lines_of(text: str) -> list[str]:
    """What newlines end. `str.splitlines` ends lines at eight more characters, which others have in names and values."""
    found = text.split("\n")
    return found if found[-1] else found[:-1]
