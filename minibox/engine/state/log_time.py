"""Times as a container's log writes them. They sort as strings."""

from __future__ import annotations

from time import gmtime, strftime


def log_time(seconds: float) -> str:
    """Format a time in seconds since the epoch."""
    whole, nanoseconds = divmod(round(seconds * 1e9), 1_000_000_000)
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(whole)) + f".{nanoseconds:09d}Z"
