"""``--ulimit`` in Docker's syntax: ``NAME=SOFT[:HARD]``."""

from __future__ import annotations

from minibox.errors import UsageError
from minibox.record import record

NAMES = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
     "rttime", "sigpending", "stack", "as",
)  # fmt: skip
SYNTAX = f"write name=soft[:hard]; names are {', '.join(sorted(NAMES))}"


@record
class Ulimit:
    """A limit of a process; -1 is unlimited.

    Attributes:
        word: what the user wrote; "" if it wasn't a word.
    """

    name: str
    soft: int
    hard: int
    word: str = ""

    def __str__(self) -> str:
        return self.word or f"{self.name}={self.soft}:{self.hard}"


def parse_ulimit(word: str) -> Ulimit:
    """Parse one ``--ulimit``.

    Raises:
        UsageError: the word is invalid.
    """
    name, equals, value = word.partition("=")
    if not equals:
        raise UsageError(f"invalid ulimit {word!r}", hint=SYNTAX)
    soft_word, colon, hard_word = value.partition(":")
    soft = _limit(soft_word, word)
    return Ulimit(name, soft, _limit(hard_word, word) if colon else soft, word)


def _limit(text: str, word: str) -> int:
    if text in ("-1", "unlimited"):
        return -1
    if not (text.isascii() and text.isdecimal()) or len(text) > 19:
        raise UsageError(f"invalid ulimit {word!r}: {text!r} is not a limit", hint="a number, or -1 for unlimited")
    return int(text)
