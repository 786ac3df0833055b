"""`--format` of commands that list things: Docker's `table`, `table TEMPLATE`, `json` and TEMPLATE.

Rows are dicts of texts by Docker's names of fields; what is no text in them is for templates alone.
"""

from __future__ import annotations

from minibox.cli.table import printable
from minibox.cli.template import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

COLUMN_WIDTH_MIN = 10
GAP = 3


def format_rows(rows: Sequence[Mapping[str, Any]], form: str, headings: Mapping[str, str], table: Sequence[str]) -> str:
    """The lines of a list; "" for none.

    Args:
        form: what `--format` says, or "".
        headings: of each field.
        table: the fields that a table has when nothing else is said.

    Raises:
        UsageError: the template is wrong.
    """
    form = form.strip(" ") or "table"
    if form == "json":
        template = Template("{{json .}}")
        return "\n".join(sendable(template.render(dict(sorted(row.items())))) for row in rows)
    word, _, own = form.partition(" ")
    if word == "table":
        template = Template(_with_tabs(own.strip(" ") or "\t".join(f"{{{{.{field}}}}}" for field in table)))
        lines = [template.render(headings), *(template.render(_safe(row)) for row in rows)]
        return "\n".join(align([line.split("\t") for line in lines]))
    template = Template(_with_tabs(form))
    if not rows:
        template.render(headings)  # what is wrong with it is told for an empty list too
    return "\n".join(sendable(template.render(row)) for row in rows)


def format_documents(documents: Sequence[Mapping[str, Any]], form: str) -> str:
    """What `inspect` prints: a template's line for each document, all in one array without a template and by "json".

    Raises:
        UsageError: the template is wrong.
    """
    import json

    if form in ("", "json"):
        style: Any = {"indent": 4} if not form else {"separators": (",", ":")}
        return sendable(json.dumps(list(documents), ensure_ascii=False, default=str, **style))
    template = Template(form)
    return "\n".join(sendable(template.render(document)) for document in documents)


def align(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns as Docker aligns them: at least 10 wide, 3 apart, the last as it is."""
    columns = max(map(len, lines), default=0)
    widths = [
        max([COLUMN_WIDTH_MIN - GAP, *(len(line[column]) for line in lines if len(line) > column + 1)]) + GAP
        for column in range(columns)
    ]
    return [
        "".join([*(cell.ljust(widths[at]) for at, cell in enumerate(line[:-1])), line[-1]]).rstrip() for line in lines
    ]


def sendable(text: str) -> str:
    """``text`` such as every output takes it: half of a pair of surrogates is none."""
    return text.encode("utf-8", "replace").decode()


def _safe(row: Mapping[str, Any]) -> dict[str, Any]:
    """Texts without what would obey a terminal, or break a table's line."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in row.items()}


def _with_tabs(form: str) -> str:
    """``\\t`` and ``\\n`` as a shell passes them on, outside of actions."""
    out, rest = "", form
    while rest:
        text, opening, rest = rest.partition("{{")
        action, closing, rest = rest.partition("}}")
        out += text.replace("\\t", "\t").replace("\\n", "\n") + opening + action + closing
    return out
