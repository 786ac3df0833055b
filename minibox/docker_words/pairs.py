"""``--env``, ``--label``, ``--sysctl`` and ``--add-host`` in Docker's syntax: a name and a value."""

from __future__ import annotations

from minibox.errors import UsageError
from minibox.record import record


@record
class Pair:
    """A name and its value.

    Attributes:
        word: what the user wrote; "" if it wasn't a word.
    """

    name: str
    value: str
    word: str = ""

    def __str__(self) -> str:
        return self.word or f"{self.name}={self.value}"


@record
class Variable:
    """A variable of the environment.

    Attributes:
        value: None for the value that the caller's environment has.
    """

    name: str
    value: str | None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value}"


def parse_variable(word: str) -> Variable:
    """Parse ``NAME=VALUE``, or ``NAME`` for the caller's value.

    Raises:
        UsageError: there is no name, or there is a NUL byte.
    """
    name, equals, value = word.partition("=")
    if not name or "\0" in word:
        raise UsageError(f"invalid environment variable: {word!r}", hint="write NAME=value, or NAME")
    return Variable(name, value if equals else None)


def parse_label(word: str) -> Pair:
    """Parse ``KEY[=VALUE]``.

    Raises:
        UsageError: there is no key.
    """
    name, _, value = word.partition("=")
    if not name:
        raise UsageError(f"invalid label {word!r}", hint="write key=value")
    return Pair(name, value, word)


def parse_sysctl(word: str) -> Pair:
    """Parse ``NAME=VALUE``.

    Raises:
        UsageError: there is no name or no value.
    """
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise UsageError(f"invalid sysctl {word!r}", hint="write name=value, for example net.core.somaxconn=1024")
    return Pair(name, value, word)


def parse_add_host(word: str) -> Pair:
    """Parse ``NAME:ADDRESS`` or ``NAME=ADDRESS``.

    Raises:
        UsageError: there is no address.
    """
    ends = [end for end in (word.find(":"), word.find("=")) if end >= 0]
    end = min(ends, default=len(word))
    if not word[end + 1 :]:
        raise UsageError(f"--add-host {word}: no address after the host name", hint="write it as NAME:ADDRESS")
    return Pair(word[:end], word[end + 1 :], word)
