"""A container's log: where it is, and how times are written in it. See `engine.container.logs`."""

from __future__ import annotations

from time import gmtime, strftime


def log_path(root: str, container_id: str) -> str:
    """The path of a container's log."""
    return f"{root}/containers/{container_id}/log"


def log_time(seconds: float) -> str:
    """Format a time in seconds since the epoch. The results sort as strings."""
    whole, nanoseconds = divmod(round(seconds * 1e9), 1_000_000_000)
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(whole)) + f".{nanoseconds:09d}Z"
