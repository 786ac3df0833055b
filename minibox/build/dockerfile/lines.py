"""From the text of a Dockerfile to its instructions' lines: comments, directives, continuations and heredocs' bodies.

Source: the Dockerfile reference ("Format", "Parser directives", "Escape"); where it is silent, what BuildKit answers.
"""

from __future__ import annotations

import re

from minibox.errors import DockerfileError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# What Go calls space; Python's str.isspace() says so of \x1c to \x1f as well.
SPACES = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
DIRECTIVES = ("syntax", "escape", "check")
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*\Z")
# An escape that ends a line continues it, unless another escape stands before it.
_CONTINUES = {escape: re.compile(rf"(?<!\{escape})\{escape}[ \t]*\Z") for escape in "\\`"}


class Problem(Exception):
    """Something in an instruction is wrong; the parser adds file, line and column, and raises a `DockerfileError`.

    ``at`` is the word to point at, as it stands in the instruction.
    """

    def __init__(self, message: str, hint: str | None = None, at: str = "") -> None:
        super().__init__(message)
        self.message, self.hint, self.at = message, hint, at


@record
class Span:
    """The first and the last line of an instruction with its heredocs, counted from 1."""

    first: int
    last: int


@record
class Line:
    """One instruction's line: its continuations are joined, the comments within are dropped.

    ``keyword`` is as written. ``marks`` has for each piece of ``text`` its offset there, and its line and column in the
    file; a trigger of ONBUILD has none, as it isn't from this file. ``comments`` are
    those right before it, back to an empty one. ``empty`` has the empty lines among its continuations.
    """

    keyword: str
    text: str
    span: Span
    marks: tuple[tuple[int, int, int], ...]
    comments: tuple[str, ...] = ()
    empty: tuple[int, ...] = ()

    @property
    def rest(self) -> str:
        """What follows the keyword."""
        return self.text.strip(SPACES)[len(self.keyword) :].strip(SPACES)

    def position(self, offset: int) -> tuple[int, int]:
        """The line and column, from 1, of an offset in ``text``."""
        for start, line, column in reversed(self.marks):
            if start <= offset:
                return line, column + offset - start
        return self.span.first, 1

    def find(self, word: str) -> tuple[int, int]:
        """The line and column of ``word``: where it stands alone, else where it occurs, else where the line begins."""
        begin = len(self.keyword) if not self.keyword.startswith(word) else 0
        alone = re.search(rf"(?<!\S){re.escape(word)}(?!\S)", self.text[begin:]) if word else None
        offset = begin + alone.start() if alone else self.text.find(word, begin)
        return self.position(max(offset, 0))

    def error(self, file: str, problem: Problem) -> DockerfileError:
        """Make the error that says where ``problem`` is."""
        return DockerfileError(file, *self.find(problem.at), problem.message, problem.hint)


class Source:
    """Reads the lines of a Dockerfile, one after the other."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.raw = text.split("\n")
        if not self.raw[-1]:
            self.raw.pop()
        self.at = 0  # how many lines were read
        self.directives = self._directives()
        self.escape = self.directives.get("escape", "\\")

    def __bool__(self) -> bool:
        return self.at < len(self.raw)

    def _directives(self) -> dict[str, str]:
        """Read the directives at the top: they end at the first line that is none, be it a comment."""
        found: dict[str, str] = {}
        first = 1 if self.raw and self.raw[0].startswith("#!") else 0
        for number, text in enumerate(self.raw[first:], first + 1):
            match = _DIRECTIVE.match(text.rstrip("\r").lstrip(SPACES))
            key = match[1].lower() if match else ""
            if not match or key not in DIRECTIVES:
                break
            if key in found:
                raise DockerfileError(self.name, number, 1, f"the directive {key} stands there twice", "remove one")
            if key == "escape" and match[2] not in ("\\", "`"):
                hint = "write # escape=\\ or # escape=`"
                raise DockerfileError(self.name, number, 1, f"invalid escape character {match[2]!r}", hint)
            found[key] = match[2]
        return found

    def instructions(
        self, body: Callable[[Line], Iterable[tuple[str, bool]]]
    ) -> Iterable[tuple[Line, tuple[str, ...]]]:
        """Give each instruction's line with the bodies of its heredocs.

        ``body`` tells the heredocs of a line: the word that ends each, and whether tabs before that word are dropped.
        """
        comments: list[str] = []
        while self:
            text = self.raw[self.at].rstrip("\r").lstrip(SPACES)
            if text.startswith("#"):
                comment = text[1:].strip(SPACES)
                comments = [*comments, comment] if comment else []
                self.at += 1
                continue
            if not text:
                comments.clear()
                self.at += 1
                continue
            line = self._logical(tuple(comments))
            comments.clear()
            contents = tuple(self._heredoc(line, end, chomp) for end, chomp in body(line))
            if contents:
                span = Span(line.span.first, self.at)
                line = Line(line.keyword, line.text, span, line.marks, line.comments, line.empty)
            yield line, contents

    def _logical(self, comments: tuple[str, ...]) -> Line:
        pieces: list[str] = []
        marks: list[tuple[int, int, int]] = []
        empty: list[int] = []
        first, length = self.at + 1, 0
        continues = True
        while continues and self:
            raw = self.raw[self.at].rstrip("\r")
            self.at += 1
            text = raw.lstrip(SPACES)
            if pieces:
                if text.startswith("#"):
                    continue
                if not text:
                    empty.append(self.at)
                    continue
                text = raw  # the space before a continuation counts
            end = _CONTINUES[self.escape].search(text)
            continues = end is not None
            marks.append((length, self.at, len(raw) - len(text) + 1))
            piece = text[: end.start()] if end else text
            pieces.append(piece)
            length += len(piece)
        text = "".join(pieces)
        keyword = re.split(r"[\t\v\f\r ]+", text.strip(SPACES), maxsplit=1)[0]
        return Line(keyword, text, Span(first, self.at), tuple(marks), comments, tuple(empty))

    def _heredoc(self, line: Line, end: str, chomp: bool) -> str:
        begin = self.at
        while self:
            text = self.raw[self.at].rstrip("\r")
            self.at += 1
            if (text.lstrip("\t") if chomp else text) == end:
                return "".join(f"{each}\n" for each in self.raw[begin : self.at - 1])
        raise line.error(
            self.name, Problem(f"the heredoc {end} has no end", f"end it with a line {end}", at=f"<<{end}")
        )
