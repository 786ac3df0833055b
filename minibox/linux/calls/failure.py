"""Errors of system calls, in words: what was tried, what the kernel answered, what it wants, which lab explains it."""

from __future__ import annotations

import os
from errno import errorcode

from minibox.linux.capabilities import NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def failure(call: str, tried: str, number: int, wants: Mapping[int, str], lab: int = 0) -> OSError:
    """Return the error for a system call; Python makes a `PermissionError` of EPERM, and so on.

    Args:
        call: its name in section 2 of the manual.
        tried: what was tried, on what.
        wants: for each errno, what the kernel wants.
        lab: the lab that explains it.
    """
    words = f"{tried}: {os.strerror(number)} ({errorcode.get(number, number)} from {call}(2))"
    if number in wants:
        words += f": {wants[number]}"
    if lab:
        words += f"; lab {lab} explains it: minibox lab start {lab}"
    return OSError(number, words)


def needs(capability: str, otherwise: str, *, instead: str = "") -> str:
    """Say why the kernel answered EPERM: this process lacks a capability; or else ``otherwise``.

    Args:
        instead: what one can do without it.
    """
    if has(capability):
        return otherwise
    return f"it needs {capability} in the user namespace that owns what you change, and this process lacks it" + (
        f"; {instead}" if instead else ""
    )


def has(capability: str) -> bool:
    """Does this thread have a capability in effect (``CapEff`` of /proc/thread-self/status)?"""
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> NUMBERS[capability] & 1)
    return False


def flags_in_words(flags: int, names: Mapping[str, int]) -> str:
    """Return ``CLONE_NEWUTS|CLONE_NEWPID``; what has no name is a number."""
    found = [name for name, bit in names.items() if bit and flags & bit == bit]
    rest = flags
    for name in found:
        rest &= ~names[name]
    return "|".join([*found, *([hex(rest)] if rest else [])]) or "0"


def check_flags(call: str, flags: object, allowed: Mapping[str, int]) -> int:
    """Return ``flags``, if they are a combination of the allowed ones.

    Raises:
        TypeError: it is not a number.
        ValueError: a bit of it means something else.
    """
    if not isinstance(flags, int) or isinstance(flags, bool):
        raise TypeError(f"{call}: flags are a number such as {_example(allowed)}, not {flags!r}")
    every = 0
    for bit in allowed.values():
        every |= bit
    if flags & ~every:
        raise ValueError(f"{call}: {hex(flags & ~every)} is none of its flags, which are {', '.join(allowed)}")
    return flags


def path_argument(call: str, name: str, path: object) -> bytes:
    """Return a path as the kernel wants it.

    Raises:
        TypeError, ValueError: it is no path.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"{call}: {name} is a path, not {path!r}")
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError(f"{call}: {name} {path!r} has a NUL in it, which ends a string in C")
    return raw


def _example(names: Iterable[str]) -> str:
    return " | ".join(list(names)[:2])
