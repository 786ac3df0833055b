"""Heredocs: which words of a line begin one, and what they hold."""

from __future__ import annotations

import re

from minibox.build.dockerfile.lines import Problem
from minibox.build.dockerfile.substitute import Style, expand
from minibox.record import record

_WORD = re.compile(r"\d*<<(-?)([^<]+)\Z")
_LINE = Style(raw_quotes=True, raw_escapes=True, keep_unset=True)
_NAME = Style(keep_unset=True)
_QUOTED_NAME = Style(raw_quotes=True, keep_unset=True)


@record
class Heredoc:
    """A heredoc: ``name`` is the word that ends it, ``content`` the lines before that.

    ``expand``: the word was not quoted, so variables count. ``chomp``: it was written as ``<<-``, so that leading tabs
    are dropped; ``content`` still has them.
    """

    name: str
    content: str = ""
    expand: bool = True
    chomp: bool = False

    @property
    def text(self) -> str:
        """The content, without leading tabs if it was written as ``<<-``."""
        if not self.chomp:
            return self.content
        return "".join(line.lstrip("\t") + "\n" for line in self.content.split("\n")[:-1])


def heredoc_of(word: str) -> Heredoc | None:
    """The heredoc, still without content, that a word begins: ``<<EOF``, ``<<-"EOF"``, ``3<<EOF``."""
    match = _WORD.match(word)
    if not match:
        return None
    words = expand(match[2], {}, _NAME).words
    if len(words) != 1:
        return None
    quoted = expand(match[2], {}, _QUOTED_NAME).words
    quotes = [sum(text.count(quote) for quote in "'\"") for text in (words[0], "".join(quoted))]
    return Heredoc(words[0], expand=quotes[0] == quotes[1], chomp=bool(match[1]))


def heredocs_in(text: str) -> tuple[Heredoc, ...]:
    """All heredocs that a line begins, in order. In a line with an open quote, nothing is one."""
    if "<<" not in text:
        return ()
    try:
        words = expand(text, {}, _LINE).words
    except Problem:
        return ()
    return tuple(found for word in words if (found := heredoc_of(word)))
