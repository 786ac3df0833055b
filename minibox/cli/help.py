"""What `minibox --help` shows: for wide terminals without click, which shows it for others and all other help."""

from __future__ import annotations

import os
import sys

from minibox.cli.tree import COMMANDS

ABOUT = "Run containers, and see how they work."
USAGE = "COMMAND [ARG]..."
#: Name, metavar and help of each global option; click adds --help.
OPTIONS = (
    ("--root", "DIR", "Directory for images and containers  [$MINIBOX_ROOT]"),
    ("--runroot", "DIR", "Directory for run-time state  [$MINIBOX_RUNROOT]"),
    (
        "--storage-driver",
        "NAME",
        "Store layers and containers with overlay, btrfs, erofs or copy  [$MINIBOX_STORAGE_DRIVER]",
    ),
    ("--debug", "", "Show a traceback with each error"),
    ("--version", "", "Show the version and exit"),
)
EPILOG = """\
Examples:
  minibox run --rm base echo hello   run one command in the built-in image
  minibox shell base                 look around in it
  minibox explain run base true      see every step of a start

minibox COMMAND --help shows more about a command."""
WIDTH_MIN, WIDTH_MAX, WIDTH_USUAL = 78, 120, 80
GAP = 2


def program_help() -> str | None:
    """Return the help for the program; None if the terminal is so narrow that click must show it."""
    width = min(_columns(), WIDTH_MAX) - GAP
    if width < WIDTH_MIN:
        return None
    options = [(f"{name} {metavar}".rstrip(), text) for name, metavar, text in OPTIONS]
    lines = [f"Usage: minibox [OPTIONS] {USAGE}", "", f"  {ABOUT}", "", "Options:"]
    lines += _table([*options, ("--help", "Show this message and exit.")], width)
    names = max(len(row[1]) for row in COMMANDS)
    for heading in dict.fromkeys(row[0] for row in COMMANDS):
        rows = [(row[1].ljust(names), row[4]) for row in COMMANDS if row[0] == heading]
        lines += ["", f"{heading}:", *_table(rows, width)]
    lines += ["", *(f"  {line}" if line else "" for line in EPILOG.split("\n"))]
    return "\n".join(lines)


def _table(rows: list[tuple[str, str]], width: int) -> list[str]:
    """Return the lines of a table of two columns, the second of which is wrapped."""
    first = max(len(name) for name, _ in rows) + GAP
    lines = []
    for name, text in rows:
        while len(text) > width - first - GAP:
            at = text.rindex(" ", 0, width - first - GAP + 1)
            lines.append(f"  {name.ljust(first)}{text[:at].rstrip()}")
            name, text = "", text[at:].lstrip()
        lines.append(f"  {name.ljust(first)}{text}")
    return lines


def _columns() -> int:
    """Return the width of the terminal, like shutil.get_terminal_size."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdecimal() and int(columns):
        return int(columns)
    try:
        found = os.get_terminal_size(sys.__stdout__.fileno()).columns if sys.__stdout__ else 0
    except (ValueError, OSError):
        found = 0
    return found or WIDTH_USUAL
