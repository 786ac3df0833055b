"""Texts for a terminal's width: paragraphs and items of lists are filled, all else stays."""

from __future__ import annotations

import re
import textwrap

ITEM = re.compile(r"(?:- |\d+\. )")
KEPT = ("#", "|")  # headings and tables


def fill(text: str, width: int) -> str:
    """Return a text in the simple Markdown of the labs, in lines of at most ``width`` characters where words allow it."""
    return "\n\n".join("\n".join(_block(block, width)) for block in text.split("\n\n"))


def _block(block: str, width: int) -> list[str]:
    parts: list[str] = []
    for line in block.splitlines():
        if not parts or ITEM.match(line) or line.startswith(KEPT) or parts[-1].startswith(KEPT):
            parts.append(line)
        else:
            parts[-1] += f" {line.strip()}"
    return [line for part in parts for line in _lines(part, width)]


def _lines(part: str, width: int) -> list[str]:
    if part.startswith(KEPT):
        return [part]
    item = ITEM.match(part)
    indent = " " * (item.end() if item else 0)
    return textwrap.wrap(part, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [
        part
    ]
