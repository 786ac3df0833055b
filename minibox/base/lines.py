"""Split text from elsewhere into lines: the kernel's files, files in /etc, a program's output."""

from __future__ import annotations


def lines_of(text: str) -> list[str]:
    """Split at newlines only. `str.splitlines` splits at eight more characters, which names and values may contain."""
    found = text.split("\n")
    return found if found[-1] else found[:-1]
