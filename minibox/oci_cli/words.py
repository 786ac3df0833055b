"""Read options as runc does, whose parser is Go's `flag` under urfave/cli.

``-name`` and ``--name`` are one, a value follows after ``=`` or as the next word, a flag takes one only after ``=``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_TRUTH = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


class Option:
    """An option. No `record`, nor is `Command`: there are a hundred of them, and half of a millisecond.

    Attributes:
        names: its spellings without dashes, the main one first.
        kind: flag, text, list (may be repeated), int or duration.
        help: one line.
        default: what it is when it isn't given; of a list always the empty one.
    """

    __slots__ = ("default", "help", "kind", "names")

    def __init__(self, names: tuple[str, ...], kind: str, help: str, default: Any = None) -> None:
        self.names, self.kind, self.help, self.default = names, kind, help, default


class Command:
    """A command.

    Attributes:
        module, function: where in this package it is done; "" for one that is only named.
        synopsis: what follows its name.
        least, most: how many words follow the options; -1: any number.
        mixed: options may stand behind other words, too.
        description: for ``--help``.
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
    """The command line can't be read."""


class HelpAsked(Exception):
    """``--help`` is on it."""


HELP = Option(("help", "h"), "flag", "show help")


def read(words: list[str], options: tuple[Option, ...], *, mixed: bool) -> tuple[dict[str, Any], list[str]]:
    """The options' values by main name, defaults filled in, and the other words.

    Args:
        mixed: options may stand behind other words. Else they end with the first word that is none.

    Raises:
        BadWords: an unknown option, one without its value, or a bad value.
        HelpAsked
    """
    by_name = {name: option for option in (*options, HELP) for name in option.names}
    values: dict[str, Any] = {option.names[0]: [] if option.kind == "list" else option.default for option in options}
    others: list[str] = []
    at, count = 0, len(words)
    while at < count:
        word = words[at]
        at += 1
        if word == "--":
            # Go's parser takes it away only where it is at work: not behind another word.
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
    if text not in _TRUTH:
        raise BadWords(f'invalid boolean value "{text}" for -{name}: parse error')
    return _TRUTH[text]


def _set(values: dict[str, Any], option: Option, name: str, text: str) -> None:
    if option.kind == "list":
        values[option.names[0]].append(text)
        return
    try:
        values[option.names[0]] = _CONVERT[option.kind](text)
    except ValueError:
        raise BadWords(f'invalid value "{text}" for flag -{name}: parse error') from None


def _duration_s(text: str) -> float:
    from minibox.durations import parse_duration_ns

    return parse_duration_ns(text) / 1e9


_CONVERT: dict[str, Callable[[str], Any]] = {"text": str, "int": lambda text: int(text, 0), "duration": _duration_s}
