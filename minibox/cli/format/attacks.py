"""Format the table of `minibox explain --without`."""

from __future__ import annotations

from minibox.cli.format.plan import wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minibox.lab.attacks.table import Table

INDENT = "  "


def as_rows(table: Table) -> dict[str, Any]:
    """The table as JSON."""
    return {
        "protections": [
            {"name": name, "does": does, "present": name not in table.absent, "stops": _stopped(table, name)}
            for name, does in table.does.items()
        ],
        "attacks": [
            {
                "name": name,
                "does": table.attacks[name],
                "stopped_by": stopped_by,
                "confirmed": name not in table.unconfirmed,
            }
            for name, stopped_by in table.stopped_by.items()
        ],
        "not_tried": table.not_tried,
    }


def _stopped(table: Table, name: str) -> list[str]:
    return [attack for attack, stopped_by in table.stopped_by.items() if name in stopped_by]


def format_table(table: Table, each: bool, width: int) -> str:
    """Format it as text.

    Args:
        each: each protection by itself; otherwise all that were left out together.
    """
    blocks = [[name] for name in table.left_out] if each else [list(table.left_out)]
    lines: list[str] = []
    for names in blocks:
        lines += [*_block(table, names, width), ""]
    through = [attack for attack, stopped_by in table.stopped_by.items() if not stopped_by]
    if through:
        lines += ["These get through this start as it is:"]
        lines += [line for attack in through for line in _attack(table, attack, "", width)]
        lines.append("")
    for attack, why in table.not_tried.items():
        lines += wrap(f"Not tried: {attack}, {table.attacks[attack]}: {why}.", "", INDENT, width)
    return "\n".join(lines).rstrip("\n")


def _block(table: Table, names: list[str], width: int) -> list[str]:
    lines = [line for name in names for line in wrap(f"{name}: {table.does[name]}.", "", INDENT, width)]
    for name in names:
        if name in table.absent:
            lines += wrap(f"This start has no {name}.", INDENT, INDENT, width)
    now = table.without(names)
    if now:
        lines += wrap(f"Without {_and(names)}, these attacks get through:", INDENT, INDENT, width)
        lines += [line for attack in now for line in _attack(table, attack, "", width)]
    covered = {attack: _others(table, attack, names) for name in names for attack in table.covered(name)}
    covered = {attack: others for attack, others in covered.items() if attack not in now}
    if covered:
        lines += wrap(
            "These it stops too, but others do as well:" if not now else "Others stop these as well:",
            INDENT,
            INDENT,
            width,
        )
    for attack, others in covered.items():
        sure = "" if attack not in table.unconfirmed else "; tried, and something else stops it"
        lines += _attack(table, attack, f" (with {_and(others)} left out as well{sure})", width)
    if not now and not covered:
        lines += wrap("It stops none of these attacks.", INDENT, INDENT, width)
    return lines


def _others(table: Table, attack: str, names: list[str]) -> list[str]:
    return [each for each in table.stopped_by[attack] if each not in names]


def _attack(table: Table, attack: str, more: str, width: int) -> list[str]:
    return wrap(f"{attack}: {table.attacks[attack]}{more}", INDENT * 2, INDENT * 3, width)


def _and(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
