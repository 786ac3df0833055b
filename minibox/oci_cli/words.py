"""Parse options like runc, which uses Go's `flag` through urfave/cli.

``-name`` and ``--name`` are the same. A value follows after ``=`` or as the next word; a flag takes one only after ``=``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Option:
    """An option. Neither this nor `Command` is a `record`, because for a hundred of them that takes half a millisecond.

    Attributes:
        names: its spellings without dashes; the main one comes first.
        kind: flag, text, list (may be repeated), int or duration.
        help: one line.
        default: the value if the option isn't given; for a list always the empty list.
    """

    __slots__ = ("default", "help", "kind", "names")

    def __init__(self, names: tuple[str, ...], kind: str, help: str, default: Any = None) -> None:
        self.names, self.kind, self.help, self.default = names, kind, help, default


class Command:
    """A command.

    Attributes:
        module, function: the function in this package that runs it; "" for a command that isn't supported.
        synopsis: its arguments.
        least, most: the number of words after the options; -1 for any number.
        mixed: options may also come after other words.
        description: more text for ``--help``.
    """

    def __init__(
        self,
        name: str,
        module: str,
        function: str,
        help: str,
        synopsis: str = "<container-id>",
        options: tuple[Option, ...] = (),
        least: int = 1,
        most: int = 1,
        mixed: bool = True,
        description: str = "",
    ) -> None:
        self.name, self.module, self.function, self.help = name, module, function, help
        self.synopsis, self.options, self.least, self.most = synopsis, options, least, most
        self.mixed, self.description = mixed, description


class BadWords(Exception):
    """The command line is wrong."""


class HelpAsked(Exception):
    """The command line contains ``--help``."""


HELP = Option(("help", "h"), "flag", "show help")


def read(words: list[str], options: tuple[Option, ...], *, mixed: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the options' values by main name, including defaults, and the other words.

    Args:
        mixed: options may also come after other words. Otherwise they end before the first word that isn't an option.

    Raises:
        BadWords: an option is unknown, lacks its value, or has an invalid one.
        HelpAsked: the words contain ``--help``.
    """
    by_name = {name: option for option in (*options, HELP) for name in option.names}
    values: dict[str, Any] = {option.names[0]: [] if option.kind == "list" else option.default for option in options}
    others: list[str] = []
    at, count = 0, len(words)
    while at < count:
        word = words[at]
        at += 1
        if word == "--":
            # Go's parser removes "--" only while it reads options, not after another word.
            others += words[at - 1 if others else at :]
            break
        name, equals, text = word.lstrip("-").partition("=")
        if word[:1] != "-" or word == "-" or (others and name not in by_name):
            others.append(word)
            if not mixed:
                others += words[at:]
                break
            continue
        option = by_name.get(name)
        if not name or word[:3] == "---":
            raise BadWords(f"bad flag syntax: {word}")
        if option is None:
            raise BadWords(f"flag provided but not defined: -{name}")
        if option is HELP:
            raise HelpAsked
        if option.kind == "flag":
            values[option.names[0]] = _truth(name, text) if equals else True
            continue
        if not equals:
            if at == count:
                raise BadWords(f"flag needs an argument: -{name}")
            text = words[at]
            at += 1
        _set(values, option, name, text)
    return values, others


def _truth(name: str, text: str) -> bool:
    from minibox.base.values import truth

    try:
        return truth(text)
    except ValueError:
        raise BadWords(f'invalid boolean value "{text}" for -{name}: parse error') from None


def _set(values: dict[str, Any], option: Option, name: str, text: str) -> None:
    if option.kind == "list":
        values[option.names[0]].append(text)
        return
    try:
        values[option.names[0]] = _CONVERT[option.kind](text)
    except ValueError:
        raise BadWords(f'invalid value "{text}" for flag -{name}: parse error') from None


def _duration_s(text: str) -> float:
    from minibox.base.values import parse_duration_ns

    return parse_duration_ns(text) / 1e9


_CONVERT: dict[str, Callable[[str], Any]] = {"text": str, "int": lambda text: int(text, 0), "duration": _duration_s}
