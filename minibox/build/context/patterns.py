"""The patterns of `.dockerignore`, of ``COPY --exclude`` and of ``COPY --parents``, and the globs of COPY's sources.

A glob is one of Go's `path/filepath.Match`: ``*`` and ``?`` stand for characters but the slash, ``[a-z]`` and ``[^a-z]``
for one of a class, a backslash takes the next character as it is. In a list of patterns ``**`` stands for any number of
directories as well, a pattern also matches all that is below what it matches, ``!`` takes files back in, and the last
pattern that matches a file, or a directory above it, decides. Source:
https://docs.docker.com/build/concepts/context/#dockerignore-files, and how Docker reads it (moby/patternmatcher). Since
2022 BuildKit takes a shortcut that forgets patterns which match a directory without changing its fate: then ``!docs``
doesn't bring back ``docs/a.md`` after ``**/*.md``. We don't.
"""

from __future__ import annotations

import posixpath
import re

from minibox.errors import BuildError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Flags = tuple[bool, ...]

WILDCARDS = frozenset("*?[")
BYTE_ORDER_MARK = "\ufeff"
NOT_SLASH, ANY_DIRECTORIES = "[^/]", "(?:.*/)?"


@record
class Pattern:
    """One pattern of a list.

    Attributes:
        text: without ``!``, as a clean relative path.
        is_exception: it began with ``!``.
        line: its line in the file, from 1; 0 if it isn't of a file.
        expression: a regular expression for whole paths.
    """

    text: str
    is_exception: bool
    line: int
    expression: str

    @property
    def start(self) -> str:
        """The directories at its beginning that have no wildcards, with a slash at the end; "" for none."""
        parts = self.text.split("/")
        for index, part in enumerate(parts):
            if has_wildcards(part) or "\\" in part:
                return "".join(f"{each}/" for each in parts[:index])
        return f"{self.text}/"


class Patterns:
    """A list of patterns, which match paths below a directory.

    Paths are relative, as `os.fsdecode` returns them.
    """

    def __init__(self, patterns: Iterable[Pattern], name: str = "") -> None:
        """``name``: the file that they come from, for messages."""
        self.patterns, self.name = tuple(patterns), name
        self.has_exceptions = any(each.is_exception for each in self.patterns)
        self._match = [re.compile(each.expression, re.DOTALL).fullmatch for each in self.patterns]
        together = "|".join(f"(?:{each.expression})" for each in self.patterns)
        self._any: Callable[[str], object] = re.compile(together or "(?!)", re.DOTALL).fullmatch
        self._starts = [each.start for each in self.patterns if each.is_exception]
        self.none: Flags = (False,) * len(self.patterns)

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def matches(self, path: str, above: Flags) -> tuple[bool, Flags]:
        """Tell whether the list matches a path, and which patterns match it or a directory above it.

        Args:
            above: the flags of the directory above; `none` for the root.
        """
        if not self._any(path):
            return self.decide(above), above
        flags = tuple(flag or match(path) is not None for match, flag in zip(self._match, above))
        return self.decide(flags), flags

    def decide(self, flags: Flags) -> bool:
        """Tell whether the list matches a path that only the patterns with these flags match."""
        for pattern, flag in zip(reversed(self.patterns), reversed(flags)):
            if flag:
                return not pattern.is_exception
        return False

    def may_except_below(self, directory: str) -> bool:
        """Tell whether an exception could match something below a directory."""
        return any(start.startswith(f"{directory}/") or f"{directory}/".startswith(start) for start in self._starts)

    def has(self, path: str) -> bool:
        """Tell whether the list matches a path; what doesn't walk through the directories calls this."""
        found = self.deciding(path)
        return found is not None and not found.is_exception

    def deciding(self, path: str) -> Pattern | None:
        """Return the pattern that decides about a path; None if none matches."""
        flags, parts = self.none, path.split("/")
        for length in range(1, len(parts) + 1):
            flags = self.matches("/".join(parts[:length]), flags)[1]
        return next((each for each, flag in zip(reversed(self.patterns), reversed(flags)) if flag), None)


def read_ignore_file(data: bytes, name: str) -> Patterns:
    """Read a `.dockerignore` file.

    Args:
        name: the file's name, for messages.

    Raises:
        BuildError: a pattern is malformed; with its line.
    """
    text = data.decode(errors="surrogateescape").removeprefix(BYTE_ORDER_MARK)
    lines = enumerate(text.split("\n"), 1)
    return Patterns(
        (pattern for number, line in lines if not line.startswith("#") and (pattern := parse(line, name, number))), name
    )


def patterns_of(texts: Sequence[str], what: str) -> Patterns:
    """Return the patterns of an option.

    Args:
        what: the option, for messages.

    Raises:
        BuildError: a pattern is malformed.
    """
    return Patterns((pattern for text in texts if (pattern := parse(text, what))), what)


def parse(text: str, name: str, line: int = 0) -> Pattern | None:
    """Parse a pattern; None if there is none.

    Raises:
        BuildError: it is malformed.
    """
    text = text.strip()
    is_exception = text.startswith("!")
    cleaned = text[is_exception:].strip()
    where = f"{name}:{line}" if line else name
    if not cleaned.strip("/"):
        if is_exception:
            raise BuildError(f"{where}: '!' without a pattern", "write what is to be taken back in, such as '!*.md'")
        return None
    cleaned = clean(cleaned).lstrip("/")
    if not cleaned:
        return None
    return Pattern(cleaned, is_exception, line, _expression(cleaned, where, double=True))


def clean(path: str) -> str:
    """Return the shortest form of a path, like Go's `path.Clean`; it keeps one slash at the beginning."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def has_wildcards(path: str) -> bool:
    """Tell whether a path has wildcards that no backslash takes away."""
    escaped = False
    for character in path:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character in WILDCARDS:
            return True
    return False


def glob(text: str, what: str) -> Callable[[str], bool]:
    """Return a function that tells whether a glob of COPY's sources matches a whole path. ``**`` is like ``*`` here.

    Raises:
        BuildError: the glob is malformed.
    """
    match = re.compile(_expression(text, what, double=False), re.DOTALL).fullmatch
    return lambda path: match(path) is not None


def _expression(text: str, where: str, *, double: bool) -> str:
    """Translate a glob into a regular expression."""
    found, at, end = "", 0, len(text)
    while at < end:
        character = text[at]
        at += 1
        if character == "*":
            stars = 1
            if double and text[at : at + 1] == "*":
                stars = 2
                at += 1
            if stars == 1:
                found += f"{NOT_SLASH}*"
                continue
            at += text[at : at + 1] == "/"
            # "**.go" matches "a.go", although the stars are followed by no slash; elsewhere they end with one.
            is_suffix = not found and not has_wildcards(text[at:]) and "\\" not in text[at:] and text[at - 1] != "/"
            piece = ".*" if at == end or is_suffix else ANY_DIRECTORIES
            found += "" if piece == ANY_DIRECTORIES and found.endswith(piece) else piece  # twice is no more than once
        elif character == "?":
            found += NOT_SLASH
        elif character == "[":
            piece, at = _class(text, at, where)
            found += piece
        else:
            if character == "\\":
                if at == end:
                    raise _malformed(text, where, "it ends with a backslash")
                character = text[at]
                at += 1
            found += re.escape(character)
    return found


def _class(text: str, at: int, where: str) -> tuple[str, int]:
    """Translate a class of characters, which begins after its bracket; return the position after it, too."""
    is_negated = text[at : at + 1] == "^"
    at += is_negated
    ranges = ""
    while text[at : at + 1] != "]" or not ranges:
        low, at = _of_class(text, at, where)
        high = low
        if text[at : at + 1] == "-":
            high, at = _of_class(text, at + 1, where)
        if low <= high:
            ranges += f"{re.escape(low)}-{re.escape(high)}"
        elif not ranges:
            ranges = "\0-\0"  # an empty range: matches nothing, as in Go
    return (f"[^{ranges}]" if is_negated else f"[{ranges}]"), at + 1


def _of_class(text: str, at: int, where: str) -> tuple[str, int]:
    character = text[at : at + 1]
    if character == "\\":
        at += 1
        character = text[at : at + 1]
    elif character in ("-", "]"):
        raise _malformed(text, where, f"{character!r} in brackets needs a backslash")
    if not character or at + 1 >= len(text):
        raise _malformed(text, where, "a bracket isn't closed")
    return character, at + 1


def _malformed(text: str, where: str, why: str) -> BuildError:
    return BuildError(f"{where}: {text!r} is not a valid pattern: {why}",
                      "see https://pkg.go.dev/path/filepath#Match")  # fmt: skip
