"""The arguments of an instruction: words, names with values, JSON lists, flags. Quotes and escapes stay in the words."""

from __future__ import annotations

import json
import re

from minibox.build.dockerfile.lines import SPACES, Problem
from minibox.build.dockerfile.suggest import did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

BLANKS = re.compile(r"[\t\v\f\r ]+")
_SURROGATES = re.compile("[\ud800-\udfff]")


def split(rest: str) -> tuple[str, ...]:
    """Split at blanks; quotes mean nothing."""
    return tuple(BLANKS.split(rest)) if rest else ()


def quoted_words(rest: str, escape: str) -> list[str]:
    """Split at spaces that are neither quoted nor escaped; quotes and escapes stay."""
    words: list[str] = []
    word: list[str] = []
    quote, at = "", 0
    while at < len(rest):
        letter = rest[at]
        at += 1
        if not quote and letter in SPACES:
            if word:
                words.append("".join(word))
                word = []
            continue
        if letter == escape and quote != "'":
            if at == len(rest):
                break  # an escape at the very end is dropped
            word.append(letter + rest[at])
            at += 1
            continue
        if letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
        word.append(letter)
    if word:
        words.append("".join(word))
    return words


def pairs(rest: str, keyword: str, escape: str) -> tuple[tuple[tuple[str, str], ...], bool]:
    """Names with values, and whether they are in the old form ``NAME VALUE``, where the value is all that follows."""
    words = quoted_words(rest, escape)
    if not words:
        raise Problem(f"{keyword} needs a name and a value", f"write {keyword} NAME=VALUE")
    if "=" not in words[0]:
        name, *value = BLANKS.split(rest, maxsplit=1)
        if not value:
            raise Problem(f"{keyword} {name} has no value", f"write {keyword} {name}=VALUE", at=name)
        return ((name, value[0]),), True
    found = []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            hint = f"write {word}=VALUE, or put the value before it in quotes if {word} belongs to that"
            raise Problem(f"{word!r} in {keyword} has no =", hint, at=word)
        if not name:
            raise Problem(f"{word!r} in {keyword} has no name", f"write {keyword} NAME=VALUE", at=word)
        found.append((name, text))
    return tuple(found), False


def json_list(rest: str) -> tuple[str, ...] | None:
    """The words of a JSON list, or None if it is none: then it is a shell's text, as in Docker."""
    if not rest.startswith("["):
        return None
    try:
        found = json.loads(rest, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    for item in found:
        if not isinstance(item, str):
            raise Problem(f"{json.dumps(item)} in a JSON list is no text", "put each word in double quotes")
    return tuple(_SURROGATES.sub("\ufffd", item) for item in found)


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def split_flags(rest: str) -> tuple[list[str], str]:
    """Take the words that begin with ``--`` off the front. In them, quotes and backslashes are resolved."""
    flags: list[str] = []
    at = 0
    while True:
        while at < len(rest) and rest[at] in SPACES:
            at += 1
        if not rest.startswith("--", at):
            return flags, rest[at:]
        word, at, blank = _flag(rest, at)
        if word == "--":
            return flags, rest[at:].strip(SPACES)
        if word or blank:
            flags.append(word)


def _flag(rest: str, at: int) -> tuple[str, int, bool]:
    word: list[str] = []
    quote, blank = "", False
    while at < len(rest):
        letter = rest[at]
        if not quote and letter in SPACES:
            break
        at += 1
        if letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote, blank = letter, True
        elif letter != "\\":
            word.append(letter)
        elif at < len(rest):
            word.append(rest[at])
            at += 1
    return "".join(word), at, blank


class Flags:
    """The flags of one instruction: each known one is taken once, and `done` refuses the others."""

    def __init__(self, keyword: str, words: Iterable[str], known: dict[str, str]) -> None:
        """``known`` has each flag's kind: "text", "texts" (may be repeated) or "switch" (with true, false or nothing)."""
        self.texts: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}
        self.switches: dict[str, bool] = {}
        for word in words:
            name, equals, value = word[2:].partition("=")
            at = f"--{name}"
            kind = known.get(name)
            if kind is None:
                hint = did_you_mean(name, known) if known else f"{keyword} has no flags"
                raise Problem(f"unknown flag --{name} of {keyword}", hint, at=at)
            if name in self.texts or name in self.switches:
                raise Problem(f"the flag --{name} of {keyword} stands there twice", "remove one", at=at)
            if kind == "switch":
                if value.lower() not in ("true", "false") and (value or equals):
                    raise Problem(f"--{name} is true or false, not {value!r}", f"write --{name}", at=at)
                self.switches[name] = value.lower() != "false"
            elif not equals:
                raise Problem(f"the flag --{name} of {keyword} needs a value", f"write --{name}=VALUE", at=at)
            elif kind == "texts":
                self.lists.setdefault(name, []).append(value)
            else:
                self.texts[name] = value

    def text(self, name: str, default: str = "") -> str:
        """The value of a flag."""
        return self.texts.get(name, default)

    def all(self, name: str) -> tuple[str, ...]:
        """The values of a flag that may be repeated."""
        return tuple(self.lists.get(name, ()))

    def switch(self, name: str) -> bool | None:
        """Whether a switch is on; None if it isn't there."""
        return self.switches.get(name)
