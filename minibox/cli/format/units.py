"""Sizes and times in readable units, like Docker's.

Source: https://pkg.go.dev/github.com/docker/go-units: decimal units, one unit of time.
"""

from __future__ import annotations

import time

UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
MINUTE_S, HOUR_S = 60, 3600


def format_size(size_bytes: int, digits: int = 3) -> str:
    """Format a size: ``72.8MB``. ``digits`` is the number of significant digits: 3 in lists, 4 in sums."""
    size, unit = float(size_bytes), 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.{digits}g}{UNITS[unit]}" if size < 1000 else f"{size:.0f}{UNITS[unit]}"


def format_span(seconds: float) -> str:
    """Format a time span: ``2 hours``. A negative span, which clocks can give, is less than a second."""
    whole = int(seconds)
    hours = int(seconds / HOUR_S + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < MINUTE_S:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if whole < HOUR_S:
        return "About a minute" if whole < 2 * MINUTE_S else f"{whole // MINUTE_S} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for length, unit, most in ((24, "days", 14), (24 * 7, "weeks", 30 * 2 / 7), (24 * 30, "months", 365 * 2 / 30)):
        if hours < length * most:
            return f"{hours // length} {unit}"
    return f"{hours // (24 * 365)} years"


def format_ago(moment_s: float, now_s: float | None = None) -> str:
    """Format the time since a moment: ``2 hours ago``; N/A for 0, an unknown moment."""
    return f"{format_span((time.time() if now_s is None else now_s) - moment_s)} ago" if moment_s else "N/A"


def format_rfc3339(moment_s: float) -> str:
    """Format a moment in the local time zone: ``2024-05-01T10:00:00+02:00``."""
    if not moment_s:
        return "N/A"
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(moment_s))
    return f"{text[:-2]}:{text[-2:]}".replace("+00:00", "Z")


def format_moment(moment_s: float) -> str:
    """Format a moment in the local time zone, like Go: ``2024-05-01 10:00:00 +0200 CEST``."""
    if not moment_s:
        return "N/A"
    local = time.localtime(moment_s)
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", local)
