"""Variables in a word: ``$NAME``, ``${NAME}`` and its modifiers, with quotes and escapes as Docker has them.

It looks like a shell's, but has its own rules: single quotes keep all, double quotes keep all but variables and the
escapes of ``"``, ``$`` and the escape character; elsewhere an escape drops itself. Source: the Dockerfile reference,
"Environment replacement"; where it is silent, what BuildKit answers.
"""

from __future__ import annotations

import re

from minibox.build.dockerfile.lines import SPACES, Problem
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_SPACE = re.compile(f"[{SPACES}]+")
_PLAIN = re.compile(r"""[^$'"\\`<]*""")
_SPECIAL_NAMES = "@*#?-$!0"
MODIFIERS = ":- - :+ + :? ? # ## % %% / //"


@record
class Style:
    """How to treat what isn't a variable.

    ``raw_quotes`` and ``raw_escapes`` leave them in the result. ``no_quotes``: quotes are letters, as in a heredoc.
    ``keep_unset``: a variable without a value stays as it was written.
    """

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    no_quotes: bool = False
    keep_unset: bool = False


@record
class Expansion:
    """A word after substitution; ``words`` is the same, split at spaces that aren't quoted.

    ``used`` has the variables it asked for that have a value, ``unset`` the others.
    """

    text: str
    words: tuple[str, ...]
    used: frozenset[str]
    unset: frozenset[str]


PLAIN = Style()
HEREDOC = Style(no_quotes=True)


def expand(word: str, variables: Mapping[str, str], style: Style = PLAIN) -> Expansion:
    """Substitute the variables in a word.

    Raises:
        Problem: a quote or brace has no end, an unknown modifier, or ``${NAME?}`` without a value.
    """
    reader = _Reader(word, variables, style)
    try:
        text, words = reader.read("", style.raw_escapes)
    except RecursionError:
        raise Problem("variables are nested too deeply", "use ENV or ARG for a part", at=word) from None
    return Expansion(text, words, frozenset(reader.used), frozenset(reader.unset))


def substitute(word: str, variables: Mapping[str, str], style: Style = PLAIN) -> str:
    """Return only the text of `expand`."""
    if "$" not in word and style.escape not in word and '"' not in word and "'" not in word:
        return word
    return expand(word, variables, style).text


class _Words:
    """Collects a text, and the words it has: only spaces that stand there as they are split it."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.words: list[str] = []
        self.word: list[str] | None = None

    def add(self, text: str, whole: bool) -> None:
        """Add a text; ``whole``: it was quoted or escaped, so spaces in it don't split."""
        self.text.append(text)
        if whole:
            self.word = self.word or []
            self.word.append(text)
            return
        first, *others = _SPACE.split(text)
        self._join(first)
        for other in others:
            self._end()
            self._join(other)

    def all(self) -> tuple[str, ...]:
        """The words up to here."""
        self._end()
        return tuple(self.words)

    def _join(self, text: str) -> None:
        if text:
            self.word = self.word or []
            self.word.append(text)

    def _end(self) -> None:
        if self.word is not None:
            self.words.append("".join(self.word))
            self.word = None


class _Reader:
    def __init__(self, word: str, variables: Mapping[str, str], style: Style) -> None:
        self.word, self.variables, self.style = word, variables, style
        self.at = 0
        self.raw_escapes = style.raw_escapes
        self.used: set[str] = set()
        self.unset: set[str] = set()

    def peek(self) -> str:
        return self.word[self.at : self.at + 1]

    def next(self) -> str:
        letter = self.peek()
        self.at += 1
        return letter

    def read(self, stop: str, raw_escapes: bool) -> tuple[str, tuple[str, ...]]:
        """Read up to the letter ``stop``, or to the end if it is ""."""
        words, outer = _Words(), self.raw_escapes
        self.raw_escapes = raw_escapes
        while (letter := self.peek()) and letter != stop:
            if letter == "$":
                words.add(self.dollar(), whole=False)
            elif letter in "'\"" and not self.style.no_quotes:
                words.add(self.single() if letter == "'" else self.double(), whole=True)
            elif self.word.startswith("<<", self.at):
                words.add(self.heredoc(), whole=True)
            elif letter == self.style.escape:
                self.at += 1
                escaped = self.next()
                if raw_escapes:
                    words.add(letter, whole=True)
                if escaped:
                    words.add(escaped, whole=True)
            else:
                plain = _PLAIN.match(self.word, self.at + 1, self.word.find(stop, self.at) if stop else len(self.word))
                end = plain.end() if plain else self.at + 1
                words.add(self.word[self.at : end], whole=False)
                self.at = end
        self.raw_escapes = outer
        if stop:
            if not letter:
                raise self.problem(f"{stop!r} is missing")
            self.at += 1
        return "".join(words.text), words.all()

    def heredoc(self) -> str:
        """Read ``<<`` with the blanks that may stand before the word of a heredoc, so that they don't split it off."""
        begin = self.at
        self.at += 2
        while self.peek() and self.peek() in "\t\r ":
            self.at += 1
        return self.word[begin : self.at]

    def single(self) -> str:
        begin = self.at
        end = self.word.find("'", begin + 1)
        if end < 0:
            raise self.problem("a single quote has no end")
        self.at = end + 1
        return self.word[begin : end + 1] if self.style.raw_quotes else self.word[begin + 1 : end]

    def double(self) -> str:
        quote = self.next()
        found = [quote] if self.style.raw_quotes else []
        while letter := self.peek():
            if letter == "$":
                found.append(self.dollar())
                continue
            self.at += 1
            if letter == '"':
                if self.style.raw_quotes:
                    found.append(letter)
                return "".join(found)
            if letter == self.style.escape:
                if self.raw_escapes:
                    found.append(letter)
                following = self.peek()
                if not following:
                    continue
                if following in ('"', "$", self.style.escape):
                    letter = self.next()
            found.append(letter)
        raise self.problem("a double quote has no end")

    def dollar(self) -> str:
        self.at += 1
        if self.peek() != "{":
            name = self.name()
            value = self.value(name) if name else "$"
            return f"${name}" if value is None and self.style.keep_unset else value or ""
        self.at += 1
        if self.peek() in ("{", "}", ":"):
            raise self.problem("bad substitution", "write ${NAME}")
        name = self.name()
        letter = self.next()
        if letter == "}":
            value = self.value(name)
            return f"${{{name}}}" if value is None and self.style.keep_unset else value or ""
        if letter == "/":
            return self.replaced(name)
        return self.modified(name, letter)

    def name(self) -> str:
        """Read a name; a number, or one of a shell's special parameters, is one."""
        begin = self.at
        if self.peek().isdigit():
            while self.peek().isdigit():
                self.at += 1
        elif self.peek() and self.peek() in _SPECIAL_NAMES:
            self.at += 1
        else:
            while (letter := self.peek()) and (letter.isalpha() or letter.isdigit() or letter == "_"):
                self.at += 1
        return self.word[begin : self.at]

    def value(self, name: str) -> str | None:
        value = self.variables.get(name)
        (self.unset if value is None else self.used).add(name)
        return value

    def modified(self, name: str, letter: str) -> str:
        colon, modifier = (":", self.next()) if letter == ":" else ("", letter)
        if not modifier:
            raise self.problem("'}' is missing")
        unknown = modifier not in ("+-?" if colon else "+-?#%")
        if unknown and not colon:
            raise self.problem(f"unknown modifier {modifier!r}", f"there are {MODIFIERS}")
        word, _ = self.read("}", raw_escapes=modifier in "#%")
        value = self.value(name)
        if value is None and self.style.keep_unset:
            return f"${{{name}{colon}{modifier}{word}}}"
        if unknown:
            raise self.problem(f"unknown modifier {colon + modifier!r}", f"there are {MODIFIERS}")
        lacks = value is None or bool(colon and not value)
        if modifier == "-":
            return word if lacks else value or ""
        if modifier == "+":
            return "" if lacks else word
        if modifier == "?":
            if lacks:
                default = "is not allowed to be empty" if value is not None else "is not allowed to be unset"
                raise self.problem(f"{name}: {word or default}", f"set it with --build-arg {name}=VALUE, or by ENV")
            return value or ""
        greedy = word.startswith(modifier)
        return self.trimmed(value or "", word[greedy:], greedy, at_end=modifier == "%")

    def trimmed(self, value: str, pattern: str, greedy: bool, at_end: bool) -> str:
        """Remove what matches at the end or at the beginning: the shortest, or if ``greedy`` the longest."""
        # Backwards, the beginning is the end, and "the shortest" needs no trick.
        parts = self.pattern(pattern, greedy)
        if at_end:
            parts, value = parts[::-1], value[::-1]
        match = re.compile("".join(parts)).match(value)
        rest = value[match.end() :] if match else value
        return rest[::-1] if at_end else rest

    def replaced(self, name: str) -> str:
        """``${NAME/PATTERN/WORD}`` replaces the first match, ``//`` all."""
        everywhere = self.peek() == "/"
        self.at += everywhere
        pattern, _ = self.read("/", raw_escapes=True)
        word, _ = self.read("}", raw_escapes=True)
        value = self.value(name)
        if value is None and self.style.keep_unset:
            return f"${{{name}/{pattern}/{word}}}"
        found, end = [], 0
        for match in re.compile("".join(self.pattern(pattern, greedy=True))).finditer(value or ""):
            if match.start() == match.end() == end and end:
                continue  # an empty match right after another counts in Python, but not in Go
            found.append((value or "")[end : match.start()] + word)
            end = match.end()
            if not everywhere:
                break
        return "".join(found) + (value or "")[end:]

    def pattern(self, pattern: str, greedy: bool) -> list[str]:
        """A shell's pattern of ``*``, ``?`` and escapes, as pieces of a regular expression."""
        pieces, at = [], 0
        while at < len(pattern):
            letter = pattern[at]
            at += 1
            if letter == "*":
                pieces.append(".*" if greedy else ".*?")
            elif letter == "?":
                pieces.append(".")
            elif letter == "\\":
                following = pattern[at : at + 1]
                if following not in ("}", "/", "*", "?", "\\"):
                    raise self.problem(f"invalid escape '\\{following}' in the pattern {pattern!r}")
                if following not in ("}", "/"):
                    pieces.append(re.escape(following))
                    at += 1
            else:
                pieces.append(re.escape(letter))
        return pieces

    def problem(self, message: str, hint: str | None = None) -> Problem:
        return Problem(f"{message} in {self.word!r}", hint, at=self.word)
