"""The commands of `minibox lab`."""

from __future__ import annotations

import os

from minibox.cli.declare import argument, command, option
from minibox.cli.format.plan import listing_width
from minibox.cli.format.prose import fill
from minibox.cli.format.table import format_json, format_table
from minibox.cli.messages import echo, note
from minibox.cli.parameters import settings_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import click
    from click.shell_completion import CompletionItem

    from minibox.cli.declare import Context
    from minibox.lab.desk import Desk

NOT_PASSED = 1


def desk_of(ctx: Context) -> Desk:
    from minibox.lab.desk import Desk

    settings = settings_of(ctx)
    return Desk(settings.home, settings.storage_driver, note)


def complete_lab(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the number of a lab."""
    from click.shell_completion import CompletionItem

    from minibox.lab.catalog import labs, parts

    found = (*labs(), *parts())
    return [CompletionItem(lab.key, help=lab.title) for lab in found if lab.key.startswith(incomplete)]


_which = argument("lab", metavar="[LAB]", required=False, default="", shell_complete=complete_lab)


@command("list")
def list_(ctx: Context) -> None:
    """List the labs."""
    from minibox.lab.catalog import labs, parts

    found = sorted((*labs(), *parts()), key=lambda lab: lab.number)
    rows = [(str(lab.number), lab.name, lab.title, lab.about) for lab in found]
    wide = format_table(("LAB", "NAME", "TITLE", "WHAT YOU LEARN"), rows)
    narrow = os.isatty(1) and max(map(len, wide.splitlines())) > listing_width()
    echo(format_table(("LAB", "NAME", "TITLE"), [row[:3] for row in rows]) if narrow else wide)


@command(
    epilog="""\b
Examples:
  minibox lab start 2            the text, and a shell in the lab's machine
  minibox lab start 2 --no-shell
  minibox lab start 2 --dir ~/containers/lab2"""
)
@option("--dir", "directory", metavar="DIR", help="Your directory for this lab  [~/minibox-labs/NAME]")
@option("--no-shell", is_flag=True, help="Don't open a shell in the machine")
@_which
def start(ctx: Context, lab: str, directory: str | None, no_shell: bool) -> int:
    """Start a lab: show its text, start its machine, and open a shell there. Without LAB, go on with the last one.

    Your directory is /lab in the machine. Leave the shell when you like: the machine runs on until `minibox lab reset`,
    and the next `start` opens another shell in it.
    """
    desk = desk_of(ctx)
    found = desk.lab(lab)
    text = desk.start(found, directory)
    echo(fill(text, listing_width()))
    if found.real_host:
        return 0
    if no_shell or not (os.isatty(0) and os.isatty(1)):
        echo(f"The machine runs. A shell in it: minibox shell {desk.machine_name(found)}")
        return 0
    return desk.shell(found)


@command(
    epilog="""\b
Examples:
  minibox lab check
  minibox lab check 2 --json"""
)
@option("--json", "as_json", is_flag=True, help="Print JSON")
@_which
def check(ctx: Context, lab: str, as_json: bool) -> int:
    """Check a lab from outside: the one that you started last, or LAB. The exit status is 1 if something is missing.

    With answer.py or answer.sh in your directory, that program is run in a fresh machine; when it has printed "ready",
    its processes are looked at. Without one, what runs in the machine that `start` made is looked at.
    """
    desk = desk_of(ctx)
    found = desk.lab(lab)
    result = desk.check(found)
    if as_json:
        document = {"lab": found.number, "name": found.name, "passed": not result.missing}
        echo(format_json({**document, "looked_at": result.looked_at, "missing": result.missing}))
    elif result.missing:
        echo(f"lab {found.key}: not yet ({result.looked_at})\n  {result.missing}")
    else:
        echo(f"lab {found.key}: passed ({result.looked_at})")
    return NOT_PASSED if result.missing else 0


@command()
@_which
def hint(ctx: Context, lab: str) -> None:
    """Show the next hint of a lab; each tells a little more."""
    desk = desk_of(ctx)
    echo(fill(desk.hint(desk.lab(lab)), listing_width()))


@command()
@_which
def solution(ctx: Context, lab: str) -> None:
    """Show a solution of a lab. `report` tells that you saw it."""
    desk = desk_of(ctx)
    echo(desk.solution(desk.lab(lab)), nl=False)


@command()
@_which
def reset(ctx: Context, lab: str) -> None:
    """End the machine of a lab, and forget what was checked. Your directory stays as it is."""
    desk = desk_of(ctx)
    desk.reset(desk.lab(lab))


def _rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted((*report["labs"], *report["parts"]), key=lambda row: row["lab"])


@command()
def status(ctx: Context) -> None:
    """Show which labs you have done, and whose machine runs."""
    rows = []
    for row in _rows(desk_of(ctx).report()):
        what = row["missing"].splitlines()[0] if row["missing"] and row["state"] != "passed" else ""
        rows.append((str(row["lab"]), row["name"], row["state"], "running" if row["running"] else "", what))
    lines = format_table(("LAB", "NAME", "STATE", "MACHINE", "WHAT IS MISSING"), rows).splitlines()
    columns = listing_width() if os.isatty(1) else max(map(len, lines))  # the last column ends where the terminal does
    echo("\n".join(line if len(line) <= columns else f"{line[: columns - 3]}..." for line in lines))


@command(
    epilog="""\b
Example:
  for each in $STUDENTS; do sudo -iu "$each" minibox lab report --json; done"""
)
@option("--json", "as_json", is_flag=True, help="Print JSON")
def report(ctx: Context, as_json: bool) -> None:
    """Report on all labs of this user, for a teacher: what was passed, after how many checks and hints."""
    found = desk_of(ctx).report()
    if as_json:
        echo(format_json(found))
        return
    rows = [
        (str(row["lab"]), row["title"], row["state"], str(row["checks"]), str(row["hints"]), "yes" if row["solution_shown"] else "")
        for row in _rows(found)
    ]  # fmt: skip
    echo(format_table(("LAB", "TITLE", "STATE", "CHECKS", "HINTS", "SOLUTION SEEN"), rows))
    echo(f"{found['user']}: {found['passed']} of {found['of']} passed")
