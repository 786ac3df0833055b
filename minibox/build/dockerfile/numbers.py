"""Numbers in a Dockerfile: digits only, of a bounded size."""

from __future__ import annotations


def number_of(text: str, below: int, base: int = 10) -> int | None:
    """Parse a number without a sign; None if it is none, or isn't ``below`` a limit."""
    digits = "0123456789"[:base]
    if not text or text.strip(digits) or len(text) > 32:
        return None
    number = int(text, base)
    return number if number < below else None
