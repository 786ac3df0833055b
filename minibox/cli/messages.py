"""Print results, and errors, warnings and notes on standard error."""

from __future__ import annotations

import sys

from minibox.base.lines import lines_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from minibox.errors import Unreadable


def warn(found: Unreadable) -> None:
    """Warn about a file that was skipped because it can't be read."""
    note(f"warning: {found}" + (f" ({found.hint})" if found.hint else ""))


def note(text: str) -> None:
    """Print a message that isn't an error."""
    write_stderr(f"minibox: {printable(text)}\n")


def echo(text: object = "", *, err: bool = False, nl: bool = True, file: TextIO | None = None) -> None:
    """Print like `click.echo`: at once, and without escape sequences unless to a terminal."""
    out = file or (sys.stderr if err else sys.stdout)
    line = f"{text}\n" if nl else str(text)
    if "\033" in line:
        import click

        click.echo(line, out, nl=False)
    elif out is not None:
        out.write(line)
        out.flush()


def report(message: str, hint: str | None, debug: bool) -> None:
    """Print an error with its hint, and with a traceback if ``debug`` is true."""
    if debug:
        import traceback

        # Our errors have their hint as a note, which ends the traceback: it comes below.
        write_stderr(traceback.format_exc().removesuffix(f"hint: {hint}\n"))
    lines = [f"minibox: {printable(message)}"]
    if hint:
        first, *more = lines_of(hint)
        lines += [f"hint: {printable(first)}", *(f"      {printable(line)}" for line in more)]
    write_stderr("\n".join(lines) + "\n")


def printable(text: str) -> str:
    """Return ``text`` on one line and without control characters. It may contain names from images and users."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def write_stderr(text: str) -> None:
    """Write to standard error if possible. Errors are ignored."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        return
