"""Sizes as users write them: ``512m``, ``2g``, ``1.5GiB``."""

from __future__ import annotations

from minibox.errors import UsageError

_FACTORS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_LARGEST = (1 << 63) - 1


def parse_size(text: str, what: str = "size") -> int:
    """Return the bytes of a size with an optional unit: b, k, m, g, t or p in any case, also ``kb`` and ``KiB``.

    Units are powers of 1024, as in Docker's options. ``what`` names the option in the error.

    Raises:
        UsageError: not a size, negative, or beyond 63 bits.
    """
    word = text.strip().lower()
    number = word.rstrip("bkmgtpi")
    unit = word[len(number) :]
    if unit[1:] in ("b", "ib") and unit[0] != "b":
        unit = unit[0]
    number = number.rstrip()
    whole, _, fraction = number.partition(".")
    digits = whole + fraction
    if unit not in _FACTORS or not (digits.isascii() and digits.isdecimal()) or len(digits) > 20 or not whole:
        raise UsageError(f"invalid {what} {text!r}", hint="write a number and a unit: 512m, 2g, 65536k")
    size: int = int(digits) * _FACTORS[unit] // 10 ** len(fraction)
    if size > _LARGEST:
        raise UsageError(f"invalid {what} {text!r}: more than 63 bits")
    return size


def size_words(size_bytes: int) -> str:
    """Format a size with four digits: ``64 MiB``, ``1.5 KiB``."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.4g} {unit}"
    return f"{size_bytes} bytes"
