"""Substitute the variables of an instruction: which of its words have any is the instruction's kind.

FROM and ARG need more than the variables of their stage: see `scope`.
"""

from __future__ import annotations

import re

from minibox.build.dockerfile import instructions as kinds
from minibox.build.dockerfile.chmod import parse_chmod
from minibox.build.dockerfile.heredocs import Heredoc
from minibox.build.dockerfile.lines import SPACES, Problem
from minibox.build.dockerfile.mounts import parse_mount
from minibox.build.dockerfile.numbers import number_of
from minibox.build.dockerfile.ports import exposed_ports
from minibox.build.dockerfile.substitute import HEREDOC, Expansion, Style, expand
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_TEXTS: dict[type[kinds.Instruction], tuple[str, ...]] = {
    kinds.Copy: ("destination", "chown", "chmod"),
    kinds.Add: ("destination", "chown", "chmod", "checksum"),
    kinds.Workdir: ("path",),
    kinds.User: ("user",),
    kinds.Stopsignal: ("signal",),
    kinds.Run: ("network", "security"),
}
_LISTS: dict[type[kinds.Instruction], tuple[str, ...]] = {
    kinds.Copy: ("sources", "exclude"),
    kinds.Add: ("sources", "exclude"),
    kinds.Volume: ("paths",),
}


class Substitution:
    """Substitutes words with the variables of a moment, and notes in ``unset`` which had no value."""

    def __init__(self, variables: Mapping[str, str], escape: str) -> None:
        self.variables, self.style = variables, Style(escape=escape)
        self.unset: set[str] = set()

    def text(self, word: str) -> str:
        """Substitute one word."""
        return self._expand(word, self.style).text

    def words(self, word: str) -> tuple[str, ...]:
        """Substitute one word, and split the result at spaces that aren't quoted."""
        return self._expand(word, self.style).words

    def heredoc(self, heredoc: Heredoc) -> Heredoc:
        """Substitute a heredoc's content; quotes are letters there."""
        if not heredoc.expand:
            return heredoc
        return Heredoc(heredoc.name, self._expand(heredoc.text, HEREDOC).text, expand=False)

    def _expand(self, word: str, style: Style) -> Expansion:
        expansion = expand(word, self.variables, style)
        self.unset |= expansion.unset
        return expansion


def expand_instruction(instruction: kinds.Instruction, by: Substitution) -> kinds.Instruction:
    """Return the instruction with its variables substituted; FROM, ARG and what has none as they are.

    Raises:
        Problem: a word can't be substituted, or what results is invalid.
    """
    kind = type(instruction)
    changes: dict[str, object] = {}
    for name in _TEXTS.get(kind, ()):
        changes[name] = by.text(getattr(instruction, name))
    for name in _LISTS.get(kind, ()):
        changes[name] = tuple(by.text(word) for word in getattr(instruction, name))
    if isinstance(instruction, (kinds.Env, kinds.Label)):
        changes["pairs"] = tuple((by.text(name), by.text(value)) for name, value in instruction.pairs)
    elif isinstance(instruction, (kinds.Copy, kinds.Add)):
        changes["heredocs"] = tuple(by.heredoc(heredoc) for heredoc in instruction.heredocs)
    elif isinstance(instruction, kinds.Expose):
        changes["ports"] = tuple(port for word in instruction.ports for port in by.words(word))
    elif isinstance(instruction, kinds.Run):
        changes["mounts"] = tuple(parse_mount(flag, by.text) for flag in instruction.mount_flags)
    result = replace(instruction, **changes)
    _check(result)
    return result


def _check(instruction: kinds.Instruction) -> None:
    """Check what could not be told while there were variables in it."""
    if isinstance(instruction, kinds.Run):
        instruction.check_choices()
    elif isinstance(instruction, (kinds.Copy, kinds.Add)):
        if instruction.chmod:
            parse_chmod(instruction.chmod)
    elif isinstance(instruction, (kinds.Env, kinds.Label)):
        if not all(name for name, _ in instruction.pairs):
            raise Problem(f"a name in {instruction.keyword} is empty after substitution")
    elif isinstance(instruction, kinds.Expose):
        exposed_ports(instruction.ports)
    elif isinstance(instruction, kinds.Stopsignal):
        _check_signal(instruction.signal)
    elif isinstance(instruction, kinds.Volume) and not all(path.strip(SPACES) for path in instruction.paths):
        raise Problem("a path in VOLUME is empty after substitution", "give the variable a value")


def _check_signal(text: str) -> None:
    """Refuse what is neither a signal's number nor its name, with or without SIG, in any case."""
    import signal

    name = text.upper().removeprefix("SIG")
    realtime = re.fullmatch(r"RT(MIN|MAX)([+-]\d{1,2})?", name)
    number = number_of(text, signal.SIGRTMAX + 1)
    if not (number or realtime or f"SIG{name}" in signal.Signals.__members__):
        raise Problem(f"unknown signal {text!r} in STOPSIGNAL", "write a name such as SIGTERM, or a number", at=text)
