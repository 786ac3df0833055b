"""What the command line tells the user on standard error: errors, warnings and notes."""

from __future__ import annotations

import sys

from minibox.base.lines import lines_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.errors import Unreadable


def warn(found: Unreadable) -> None:
    """Tell of a file that was left out, since it can't be read."""
    note(f"warning: {found}" + (f" ({found.hint})" if found.hint else ""))


def note(text: str) -> None:
    """Tell the user something that is no error."""
    write_stderr(f"minibox: {printable(text)}\n")


def report(message: str, hint: str | None, debug: bool) -> None:
    """Tell the user of an error; with the traceback where ``debug`` asks for it."""
    if debug:
        import traceback

        write_stderr(traceback.format_exc())
    lines = [f"minibox: {printable(message)}"]
    if hint:
        first, *more = lines_of(hint)
        lines += [f"hint: {printable(first)}", *(f"      {printable(line)}" for line in more)]
    write_stderr("\n".join(lines) + "\n")


def printable(text: str) -> str:
    """``text`` on one line and without control characters: names come from images and users."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def write_stderr(text: str) -> None:
    """Write where somebody may be reading; what can't be written is lost."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        return
