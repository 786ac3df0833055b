"""`minibox explain run ...`, and the listing that `minibox run --trace` prints."""

from __future__ import annotations

import shutil
import sys
import textwrap

from minibox.cli.table import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WIDTH_MAX = 120
WIDTH_MIN = 40


def format_plan(rows: list[dict[str, Any]], width: int) -> str:
    """The steps as a numbered listing: operation, why, manual page, and the shell command that does the same."""
    margin = len(str(len(rows))) + 2
    lines: list[str] = []
    actor = None
    for row in rows:
        if row.get("actor") != actor:
            actor = row.get("actor")
            lines += [f"In the {actor}:", ""]
        head = f"{row['index']:>{margin - 2}}  {row['operation']} {describe(row.get('arguments'))}".rstrip()
        lines += wrap(head, "", " " * (margin + 4), width)
        manual = f" [{row['manual']}]" if row.get("manual") else ""
        lines += wrap(f"{row.get('why') or ''}{manual}".strip(), " " * (margin + 2), " " * (margin + 2), width)
        for line in str(row.get("shell") or "").splitlines():  # not wrapped: it is there to be copied
            lines.append(f"{'':{margin + 2}}$ {line}")
        lines.append("")
    return "\n".join(lines).rstrip("\n")


def format_trace(rows: list[dict[str, Any]]) -> str:
    """The steps with the microseconds that each took, their sum, and the error of the one that failed."""
    lines = [f"{'step':>4}  {'µs':>7}  operation"]
    for row in rows:
        microseconds = row.get("microseconds")
        time = "" if microseconds is None else f"{microseconds:.0f}"
        actor = f"{row['actor']}: " if row.get("actor") else ""
        lines.append(
            f"{row['index']:>4}  {time:>7}  {actor}{row['operation']} {describe(row.get('arguments'))}".rstrip()
        )
        if row.get("error"):
            lines.append(f"{'':>4}  {'':>7}  FAILED: {printable(str(row['error']))}")
    total = sum(row.get("microseconds") or 0 for row in rows)
    lines.append(f"{'sum':>4}  {total:>7.0f}")
    return "\n".join(lines)


def format_script(rows: list[dict[str, Any]]) -> str:
    """The steps' shell commands as one script, each under its number and reason."""
    lines = ["#!/bin/sh", "set -eu"]
    for row in rows:
        if row.get("shell"):
            lines += [
                "",
                f"# {row['index']}. {row['operation']}: {row.get('why') or ''}".rstrip(": "),
                str(row["shell"]),
            ]
    return "\n".join(lines)


def describe(arguments: Any) -> str:
    """The arguments of a step on one line: a mapping as ``name=value``."""
    if arguments is None:
        return ""
    if isinstance(arguments, dict):
        return " ".join(f"{name}={printable(_value(value))}" for name, value in arguments.items())
    if isinstance(arguments, (list, tuple)):
        return " ".join(printable(_value(value)) for value in arguments)
    return printable(str(arguments))


def print_trace(rows: list[dict[str, Any]]) -> None:
    """Print `format_trace` on stderr."""
    if sys.stderr is not None:
        sys.stderr.write(format_trace(rows) + "\n")
        sys.stderr.flush()


def listing_width() -> int:
    """Columns for a listing: the terminal's, within bounds."""
    return max(WIDTH_MIN, min(WIDTH_MAX, shutil.get_terminal_size().columns))


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)


def wrap(text: str, first: str, rest: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
