"""Values as Go and Docker's users write them: durations (``1m30s``), booleans (``true``, ``1``), labels (``team=web``)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NANOSECONDS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")
_LARGEST = (1 << 63) - 1


def parse_duration_ns(text: str) -> int:
    """Nanoseconds of a duration: numbers with a unit each (ns, us, ms, s, m, h); 0 needs none.

    Raises:
        ValueError: it is none, is negative, or doesn't fit into 63 bits.
    """
    total, rest = 0, text
    if text == "0":
        return 0
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        whole, point, fraction = number.partition(".")
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("nuµμmsh"))]
        rest = rest[len(unit) :]
        if unit not in _NANOSECONDS or not (whole or fraction) or "." in fraction or len(number) > 20:
            break
        total += int((whole or "0") + fraction) * _NANOSECONDS[unit] // 10 ** len(fraction)
    else:
        if text and total <= _LARGEST:
            return total
    raise ValueError("not a duration, such as 5s or 1m30s")


def truth(text: str) -> bool:
    """Parse a boolean like Go's `strconv.ParseBool`. Raises ValueError."""
    if text not in _TRUE and text not in _FALSE:
        raise ValueError("not true or false")
    return text in _TRUE


def has_label(labels: Mapping[str, object], wanted: str) -> bool:
    """Tell whether labels match the filter ``KEY`` or ``KEY=VALUE``."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
