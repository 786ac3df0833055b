"""The commands list, ps, spec and features."""

from __future__ import annotations

import sys

from minibox.errors import MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minibox.oci_cli.commands import Settings

HEADS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
WIDTH_LEAST, PADDING = 12, 3  # runc's


def list_(settings: Settings, values: dict[str, Any], _: list[str]) -> int:
    """List the containers under a root."""
    from minibox.engine.oci.list import listed
    from minibox.oci_cli.output import write

    if values["format"] not in ("table", "json"):
        raise MiniboxError("invalid format option")
    found = listed(settings.root, lambda text: settings.log.write("warning", text))
    if values["quiet"]:
        sys.stdout.write("".join(f"{each['id']}\n" for each in found))
    elif values["format"] == "json":
        write(found or None)
    else:
        sys.stdout.write(_table([HEADS, *([str(each[head.lower()]) for head in HEADS] for each in found)]))
    return 0


def _table(rows: list[Sequence[str]]) -> str:
    widths = [max(WIDTH_LEAST, *(len(row[at]) + PADDING for row in rows)) for at in range(len(rows[0]) - 1)]
    return "".join("".join(f"{word:{width}}" for word, width in zip(row, widths)) + row[-1] + "\n" for row in rows)


def ps(settings: Settings, values: dict[str, Any], words: list[str]) -> int:
    """Show a container's processes: their ids as JSON, or the output of ps(1)."""
    from minibox.engine.oci.list import processes_of
    from minibox.oci_cli.output import write

    if values["format"] not in ("table", "json"):
        raise MiniboxError("invalid format option")
    pids = processes_of(settings.root, words[0])
    if values["format"] == "json":
        write(sorted(pids))
        return 0
    from minibox.engine.container.processes import lines_of

    head, lines = lines_of(pids, words[1:])
    sys.stdout.write("\n".join([head, *lines]) + "\n")
    return 0


def spec(_: Settings, values: dict[str, Any], __: list[str]) -> int:
    """Write a template config.json."""
    from minibox.engine.oci.spec_template import write_template

    write_template(values["bundle"], rootless=bool(values["rootless"]))
    return 0


def features(_: Settings, __: dict[str, Any], ___: list[str]) -> int:
    """Print the features of this runtime."""
    from minibox.engine.oci.features import features as found
    from minibox.oci_cli.output import write

    write(found(), "    ")
    return 0
