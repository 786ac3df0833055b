"""The log of a detached container, ``--log-opt``: how large its files get, and how many are kept."""

from __future__ import annotations

from minibox.errors import UsageError

LOG_BYTES_MAX = 10 << 20
LOG_FILES = 3


def log_limits(log_opt: tuple[str, ...]) -> tuple[int, int]:
    """Parse the log options: the size of a log file in bytes (0: no limit), and how many files to keep.

    Raises:
        UsageError: an option is unknown or its value is invalid.
    """
    from minibox.base.sizes import parse_size

    bytes_max, files = LOG_BYTES_MAX, LOG_FILES
    for option in log_opt:
        key, _, value = option.partition("=")
        if key == "max-size":
            bytes_max = 0 if value == "-1" else parse_size(value)
        elif key == "max-file" and value.isascii() and value.isdigit() and int(value) > 0:
            files = int(value)
        else:
            raise UsageError(f"invalid log option {option!r}", "use max-size=10m or max-file=3")
    return bytes_max, files
