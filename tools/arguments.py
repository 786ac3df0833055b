"""Write the tables of arguments into docs/api.md: `make map`. A unit test fails where the two differ."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

import minibox  # noqa: E402
from minibox.api.arguments import ARGUMENTS, BUILD, OPTIONS  # noqa: E402

PAGE = CHECKOUT / "docs/api.md"
BEGIN, END = "<!-- the arguments: `make map` writes them -->\n", "<!-- the end of the arguments -->\n"
CLASSES = ("Sandbox", "Popen", "Snapshot", "Network", "Image", "ImageBuild")
#: Arguments that are no plain value, and constructors that aren't for users.
UNCHECKED = {"self", "cls", "function", "box", "groups", "options", "keywords", "_snapshot"}
OURS = {"Popen", "Snapshot", "Image"}


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public functions and methods, by the names that users write."""
    yield "run", minibox.run
    yield "sandboxed", minibox.sandboxed
    for name in CLASSES:
        kind = getattr(minibox, name)
        if name not in OURS:
            yield name, kind.__init__
        for method, found in inspect.getmembers(kind, callable):
            if not method.startswith("_") and inspect.getdoc(found) and method not in INTERNAL:
                yield f"{name}.{method}", found


#: Methods without an underscore that aren't for users.
INTERNAL = {"begin", "abandon", "drain", "output", "pipes", "collect", "joinable_name"}


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    found = inspect.signature(function).parameters.values()
    return [each for each in found if each.name not in UNCHECKED]


def tables() -> str:
    """The options of containers, the arguments of each function, and the keywords of builds."""
    lines = _table("keyword", "type", "unit", "takes", "default", "for example", "errors")
    for name, option in OPTIONS.items():
        kind, errors = option.kind, ", ".join(filter(None, ("`WrongArgument`", option.errors)))
        lines.append(
            _row(f"`{name}`", kind.type, kind.unit, kind.expected, option.default, f"`{option.example}`", errors)
        )
    lines += ["", *_table("argument", "type", "unit", "takes", "default", "of")]
    found: dict[tuple[str, ...], list[str]] = {}
    for title, function in functions():
        for each in parameters(function):
            kind = ((BUILD.get(each.name) if title == "ImageBuild" else None) or ARGUMENTS[each.name]).kind
            if title == "sandboxed" and each.name == "timeout":
                kind = OPTIONS["wall_time"].kind
            default = "must be given" if each.default is inspect.Parameter.empty else f"`{shown(each.default)}`"
            found.setdefault((f"`{each.name}`", kind.type, kind.unit, kind.expected, default), []).append(f"`{title}`")
    lines += [_row(*cells, ", ".join(titles)) for cells, titles in found.items()]
    lines += ["", *_table("keyword of a build", "type", "unit", "takes", "for example")]
    for name, option in BUILD.items():
        kind = option.kind
        lines.append(_row(f"`{name}`", kind.type, kind.unit, kind.expected, f"`{option.example}`"))
    return "\n".join(lines) + "\n"


def shown(value: object) -> str:
    """A default as it is written in a call."""
    return f"{value:#o}" if value == 0o644 else repr(value)


def _table(*heads: str) -> list[str]:
    return [_row(*heads), _row(*("---" for _ in heads))]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def with_tables(page: str) -> str:
    """The page with today's tables in place of those it has."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
