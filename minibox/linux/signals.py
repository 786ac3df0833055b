"""Signal numbers by name, without importing `signal`, whose enums cost milliseconds."""

from __future__ import annotations

from minibox.errors import UsageError

TYPE_CHECKING = False

SIGRTMIN, SIGRTMAX = 34, 64  # in glibc and musl, which use 32 and 33 themselves


def signal_number(word: str) -> int:
    """Return the number of a signal: ``SIGTERM``, ``term``, ``15``, ``RTMIN+3`` or ``RTMAX-1``.

    Raises:
        UsageError: there is no such signal.
    """
    if word.isascii() and word.isdecimal():
        number = int(word) if len(word) < 4 else 0
        if 1 <= number <= SIGRTMAX:
            return number
        raise UsageError(f"invalid signal {word!r}", hint="numbers go from 1 to 64")
    name = word.upper()
    name = name if name.startswith("SIG") else "SIG" + name
    for base, number, sign in (("SIGRTMIN", SIGRTMIN, "+"), ("SIGRTMAX", SIGRTMAX, "-")):
        if name == base:
            return number
        offset = name[len(base) + 1 :]
        if name.startswith(base + sign) and offset.isascii() and offset.isdecimal() and len(offset) < 3:
            number += int(sign + offset)
            if SIGRTMIN <= number <= SIGRTMAX:
                return number
    if TYPE_CHECKING:
        import signal as _signal
    else:
        import _signal  # the C module that `signal` wraps in enums

    found = getattr(_signal, name, None) if name.isalnum() else None
    if isinstance(found, int) and 0 < found <= SIGRTMAX:
        return int(found)
    raise UsageError(f"invalid signal {word!r}", hint="signal(7) lists the names")
