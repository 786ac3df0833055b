"""Format the output of `minibox explain run ...` and `minibox run --trace`."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from typing import Any

from minibox.base.lines import lines_of
from minibox.cli.format.table import printable

WIDTH_MAX = 120
WIDTH_MIN = 40


def format_plan(rows: list[dict[str, Any]], width: int) -> str:
    """Format steps as a numbered list: what each does, how, why, and the equivalent shell command.

    ``rows`` come from `engine.report.explain.explain`. They are grouped by the process that does them.
    """
    column = len(str(max((row["index"] for row in rows), default=0))) + 2
    margin = " " * column
    lines: list[str] = []
    actor = None
    for row in rows:
        if row.get("actor") != actor:
            actor = row.get("actor")
            lines += [f"{actor}:", ""]
        does = legible(str(row.get("does") or row["operation"]))
        head, *more = wrap(f"{does} [{row['manual']}]" if row.get("manual") else does, margin, margin, width)
        lines += [f"{row['index']:>{column - 2}}  {head[column:]}", *more]
        lines += wrap(f"{row['operation']}: {describe(unsaid(row))}".rstrip(": "), margin, margin + "  ", width)
        if row.get("why"):
            lines += wrap(f"why: {legible(str(row['why']))}", margin, margin + "  ", width)
        # Not wrapped, so that you can copy it.
        lines += [f"{margin}$ {printable(line)}" for line in lines_of(str(row.get("shell") or ""))]
        lines.append("")
    return "\n".join(lines).rstrip("\n")


def format_trace(rows: list[dict[str, Any]], width: int = WIDTH_MAX) -> str:
    """Format steps with the microseconds that each took, a sum for each process, and the error of a failed step.

    Lines have at most ``width`` columns, except for the error.
    """
    actors = max((len(str(row.get("actor") or "")) for row in rows), default=0)
    room = width - actors - 17
    lines = [f"{'step':>4}  {'µs':>7}  {'':{actors}}  operation"]
    for row in rows:
        time = "-" if row.get("microseconds") is None else f"{row['microseconds']:.0f}"
        what = str(row.get("does") or f"{row['operation']} {describe(row.get('arguments'))}".rstrip())
        lines.append(
            f"{row['index']:>4}  {time:>7}  {row.get('actor') or '':{actors}}  {_shortened(legible(what), room)}"
        )
        if row.get("error"):
            lines.append(f"{'':>4}  {'':>7}  {'':{actors}}  FAILED: {printable(str(row['error']))}")
    for actor in dict.fromkeys(row.get("actor") for row in rows):
        total = sum(row.get("microseconds") or 0 for row in rows if row.get("actor") == actor)
        lines.append(f"{'sum':>4}  {total:>7.0f}  {actor or '':{actors}}")
    lines += wrap(
        "The processes run in parallel; the time of a wait or receive step includes the waiting.", "", "", width
    )
    return "\n".join(lines)


def legible(text: str) -> str:
    """Return ``text`` for reading, not for copying: with shortened ids and digests, without control characters."""
    return re.sub("([0-9a-f]{12})[0-9a-f]{52}", r"\1...", printable(text))


def unsaid(row: dict[str, Any]) -> Any:
    """Return the arguments of a step, without those whose value its sentence contains."""
    arguments, does = row.get("arguments"), f" {row.get('does')} "
    if not isinstance(arguments, dict):
        return arguments
    return {name: value for name, value in arguments.items() if f" {value} " not in does}


def describe(arguments: Any) -> str:
    """Format the arguments of a step on one line, a mapping as ``name=value``."""
    if arguments is None:
        return ""
    if isinstance(arguments, dict):
        return " ".join(f"{name}={legible(_value(value))}" for name, value in arguments.items() if value != "")
    if isinstance(arguments, (list, tuple)):
        return " ".join(legible(_value(value)) for value in arguments)
    return legible(str(arguments))


def print_trace(rows: list[dict[str, Any]]) -> None:
    """Print the result of `format_trace` to stderr."""
    if sys.stderr is not None:
        sys.stderr.write(format_trace(rows, _width_of(2)) + "\n")
        sys.stderr.flush()


def listing_width() -> int:
    """Return the width for a list: that of the terminal, within limits."""
    return max(WIDTH_MIN, min(WIDTH_MAX, shutil.get_terminal_size().columns))


def _width_of(fd: int) -> int:
    try:
        return max(WIDTH_MIN, min(WIDTH_MAX, os.get_terminal_size(fd).columns))
    except OSError:
        return WIDTH_MAX


def _shortened(text: str, columns: int) -> str:
    return text if len(text) <= columns else text[: columns - 3] + "..."


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)


def wrap(text: str, first: str, rest: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
