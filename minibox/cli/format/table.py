"""Format plain tables and JSON."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

GAP = 3


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table. Columns are as wide as their widest cell, and control characters are escaped."""
    lines = [tuple(headings), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        (" " * GAP).join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def printable(text: str) -> str:
    """Return ``text`` with control characters escaped, because a terminal would obey them."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def format_json(value: Any) -> str:
    """Return ``value`` as indented JSON; values that JSON doesn't know become strings."""
    import json

    return json.dumps(value, indent=2, default=str)
