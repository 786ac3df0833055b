"""``--chmod`` of COPY and ADD: an octal mode, or a symbolic one such as ``u=rwX,go=rX``.

Source: chmod(1), POSIX; Docker has the symbolic form since frontend 1.14.
"""

from __future__ import annotations

import re

from minibox.build.dockerfile.lines import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)\Z")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_CLASSES = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}


def parse_chmod(text: str) -> Callable[[int, bool], int]:
    """Return a function from a file's mode, and whether it is a directory, to its new mode (the low 12 bits).

    Raises:
        Problem: it is neither octal nor symbolic.
    """
    if text and not text.strip("01234567"):
        octal = int(text, 8)
        if octal <= 0o7777:
            return lambda mode, directory: octal
    clauses = [_CLAUSE.match(clause) for clause in text.split(",")]
    if not all(clauses):
        raise Problem(
            f"invalid --chmod {text!r}", "write an octal mode such as 0755, or u=rwX,go=rX", at=f"--chmod={text}"
        )
    steps = [(clause[1], _ACTION.findall(clause[2])) for clause in clauses if clause]

    def change(mode: int, directory: bool) -> int:
        mode &= 0o7777
        for who, actions in steps:
            for sign, what in actions:
                mode = _apply(mode, directory, who, sign, what)
        return mode

    return change


def _apply(mode: int, directory: bool, who: str, sign: str, what: str) -> int:
    classes = "ugo" if not who or "a" in who else who
    mask = 0
    for each in classes:
        mask |= _CLASSES[each]
    if not who or "a" in who:
        mask |= 0o1000
    if what in _SHIFTS and what:
        copied = mode >> _SHIFTS[what] & 7
        bits = copied * 0o111
    else:
        bits = 0
        for letter in what:
            if letter == "X":
                bits |= 0o111 if directory or mode & 0o111 else 0
            else:
                bits |= _BITS[letter]
    bits &= mask
    if sign == "+":
        return mode | bits
    if sign == "-":
        return mode & ~bits
    kept = mask & 0o777
    if not directory or "s" in what:
        kept |= mask & 0o6000
    return mode & ~(kept | (mask & 0o1000)) | bits
