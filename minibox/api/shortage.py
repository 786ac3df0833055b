"""Errors of a process that is at one of its limits: a bare OSError from deep inside says neither which nor what to do."""

from __future__ import annotations

import os
import resource
from errno import EMFILE, ENFILE

from minibox.base.program import LIMITS, hint_of_limit
from minibox.errors import MiniboxError, kernel_says, suppress

NEEDED = 24  # descriptors that a start takes for a moment
KEPT = 8  # and that a sandbox keeps


def in_words(what: str, error: OSError | MiniboxError) -> MiniboxError | None:
    """Return the error that a limit has caused with what to do, or None for all other errors."""
    if isinstance(error, MiniboxError):
        if error.hint or not hint_of_limit(error):
            return None
        error.hint = _hint(EMFILE if LIMITS[EMFILE] == hint_of_limit(error) else 0, error)
        return error
    if error.errno not in (EMFILE, ENFILE) and not hint_of_limit(error):
        return None
    return MiniboxError(f"{what}: {kernel_says(error)}", _hint(error.errno or 0, error))


def _hint(number: int, error: BaseException) -> str:
    if number == ENFILE:
        return "the whole system has too many files open: fs.file-max limits it"
    if number != EMFILE:
        return hint_of_limit(error)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    has = ""
    with suppress(OSError):
        has = f" and has {len(os.listdir('/proc/self/fd'))}"
    return (
        f"this process may have {limit} files open (ulimit -n){has}: a start takes up to {NEEDED}, a sandbox keeps {KEPT}; "
        "close some, or raise the limit with resource.setrlimit"
    )
