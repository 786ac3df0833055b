"""`--format` of list commands: Docker's `table`, `table TEMPLATE`, `json` and TEMPLATE.

A row is a dict from Docker's field names to strings; values that aren't strings are for templates only.
"""

from __future__ import annotations

from minibox.cli.format.table import printable
from minibox.cli.messages import echo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

COLUMN_WIDTH_MIN = 10
GAP = 3


def format_rows(rows: Sequence[Mapping[str, Any]], form: str, headings: Mapping[str, str], table: Sequence[str]) -> str:
    """Format the lines of a list; "" for an empty one.

    Args:
        form: the value of `--format`, or "".
        headings: the heading of each field.
        table: the default columns of a table.

    Raises:
        UsageError: the template is invalid.
    """
    form = form.strip(" ") or "table"
    if form == "table":
        return "\n".join(align([[str(row[field]) for field in table] for row in (headings, *map(_safe, rows))]))
    from minibox.cli.format.template import Template

    if form == "json":
        template = Template("{{json .}}")
        return "\n".join(sendable(template.render(dict(sorted(row.items())))) for row in rows)
    word, _, own = form.partition(" ")
    if word == "table":
        template = Template(_with_tabs(own.strip(" ")))
        lines = [template.render(headings), *(template.render(_safe(row)) for row in rows)]
        return "\n".join(align([line.split("\t") for line in lines]))
    template = Template(_with_tabs(form))
    if not rows:
        template.render(headings)  # reports an invalid template for an empty list, too
    return "\n".join(sendable(template.render(row)) for row in rows)


def print_rows(rows: Sequence[Mapping[str, Any]], form: str, headings: Mapping[str, str], table: Sequence[str]) -> None:
    """Print what `format_rows` makes of a list; nothing for an empty one."""
    if text := format_rows(rows, form, headings, table):
        echo(text)


def format_documents(documents: Sequence[Mapping[str, Any]], form: str) -> str:
    """Format what `inspect` prints: a line for each document with a template, else one JSON array.

    Raises:
        UsageError: the template is invalid.
    """
    import json

    if form in ("", "json"):
        style: Any = {"indent": 4} if not form else {"separators": (",", ":")}
        return sendable(json.dumps(list(documents), ensure_ascii=False, default=str, **style))
    from minibox.cli.format.template import Template

    template = Template(form)
    return "\n".join(sendable(template.render(document)) for document in documents)


def align(lines: Sequence[Sequence[str]]) -> list[str]:
    """Align columns like Docker: at least 10 wide, 3 spaces apart, the last one not padded."""
    columns = max(map(len, lines), default=0)
    widths = [
        max([COLUMN_WIDTH_MIN - GAP, *(len(line[column]) for line in lines if len(line) > column + 1)]) + GAP
        for column in range(columns)
    ]
    return [
        "".join([*(cell.ljust(widths[at]) for at, cell in enumerate(line[:-1])), line[-1]]).rstrip() for line in lines
    ]


def sendable(text: str) -> str:
    """Return ``text`` without lone surrogates, which UTF-8 can't encode."""
    return text.encode("utf-8", "replace").decode()


def _safe(row: Mapping[str, Any]) -> dict[str, Any]:
    """Escape control characters, which a terminal would obey or which would break a line of the table."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in row.items()}


def _with_tabs(form: str) -> str:
    """Replace ``\\t`` and ``\\n``, as a shell passes them on, by tab and newline; but not inside actions."""
    out, rest = "", form
    while rest:
        text, opening, rest = rest.partition("{{")
        action, closing, rest = rest.partition("}}")
        out += text.replace("\\t", "\t").replace("\\n", "\n") + opening + action + closing
    return out
