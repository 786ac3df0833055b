"""Times as a container's log has them: they compare as strings."""

from __future__ import annotations

from time import gmtime, strftime


def log_time(seconds: float) -> str:
    """A time since the epoch as the log writes it."""
    whole, nanoseconds = divmod(round(seconds * 1e9), 1_000_000_000)
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(whole)) + f".{nanoseconds:09d}Z"
