"""Read ordinary command lines by their declarations, without click.

What isn't certain is left to click: errors, help, and what only click reads. So whatever is read here, click would have read
in the same way.
"""

from __future__ import annotations

import os

from minibox.cli.declare import Command
from minibox.cli.tree import COMMANDS, GROUPS, load, row_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.cli.declare import Parameter


class Line:
    """The command line so far, as a command sees it: see `declare.Context`."""

    def __init__(self, parent: Line | None, info_name: str) -> None:
        self.parent = parent
        self.info_name = info_name
        self.obj: Any = None

    def find_root(self) -> Line:
        return self.parent.find_root() if self.parent else self


def read(words: list[str]) -> tuple[Command, Line, dict[str, Any]] | None:
    """Read ``COMMAND... [OPTION | ARGUMENT]...``: return the command, its context and the values that it is called with.

    Returns None if click must read the words instead.
    """
    rows, line = COMMANDS, Line(None, "minibox")
    for at, word in enumerate(words):
        row = row_of(rows, word)
        if row is None:
            return None
        line = Line(line, word)
        if not row[2]:
            rows = GROUPS[row[3]]
            continue
        if row[2] in (
            "commands.run",
            "commands.update",
            "commands.teaching.trial",
        ):  # click's own, by tables of options
            return None
        command = load(row)
        values = read_values(command, words[at + 1 :])
        return None if values is None else (command, line, values)
    return None


def read_values(command: Command, words: list[str]) -> dict[str, Any] | None:
    """Read the words after a command."""
    if command.needs_click or not command.interspersed:
        return None
    given: dict[str, Any] = {}
    rest: list[str] = []
    by_name = {name: each for each in command.params if each.is_option for name in (*each.opts, *each.secondary_opts)}
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            rest += words[at:]
            break
        if word[:1] != "-" or word == "-":
            rest.append(word)
            continue
        name, equals, value = word.partition("=") if word[:2] == "--" else (word[:2], "", word[2:])
        option = by_name.get(name)
        while option is not None and option.kind == "flag" and not equals:
            if option.callback is not None:
                return None
            given[option.name] = name in option.opts
            if not value:
                break
            name, value = f"-{value[0]}", value[1:]  # the next of several letters
            option = by_name.get(name)
        if option is None or option.callback is not None or (option.kind == "flag" and equals):
            return None
        if option.kind == "flag":
            continue
        if not value and not equals:
            if at == len(words):
                return None
            value = words[at]
            at += 1
            if value[:1] == "-" and value != "-":
                return None
        elif not equals and value[0] == "=":
            return None
        try:
            converted = _converted(option, value)
        except ValueError:
            return None
        given[option.name] = (*given.get(option.name, ()), converted) if option.multiple else converted
    return _with_arguments(command, given, rest)


def _with_arguments(command: Command, given: dict[str, Any], rest: list[str]) -> dict[str, Any] | None:
    """Share ``rest`` out to the arguments, and add the defaults."""
    values = {}
    for each in command.params:
        if each.is_option:
            if each.expose_value:
                values[each.name] = given.get(each.name, each.default)
            continue
        if each.multiple:
            taken, rest = rest, []
        else:
            taken, rest = rest[:1], rest[1:]
        if not taken:
            if each.required:
                return None
            values[each.name] = each.default
        elif "" in taken:
            return None
        else:
            try:
                taken = [_converted(each, word) for word in taken]
            except ValueError:
                return None
            values[each.name] = tuple(taken) if each.multiple else taken[0]
    return None if rest else values


def _converted(each: Parameter, text: str) -> Any:
    """Return the value of a parameter. Raises ValueError if it isn't certain which one it is."""
    if each.kind == "text":
        return text
    if each.kind == "choice" and text in each.choices:
        return text
    if each.kind == "int":
        digits = text.removeprefix("-")
        if digits.isascii() and digits.isdecimal() and len(digits) < 19 and int(text) >= (each.least or -(1 << 63)):
            return int(text)
    if each.kind == "bool" and text in ("true", "false"):
        return text == "true"
    if each.kind == "path" and is_plain_path(text):
        return text
    raise ValueError(text)


def is_plain_path(text: str) -> bool:
    """Return whether click would take this path without a look at it: it refuses what can't be read."""
    return bool(text) and "\0" not in text and (os.access(text, os.R_OK) or not os.path.lexists(text))
