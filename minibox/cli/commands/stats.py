"""The command stats."""

from __future__ import annotations

import shutil
import sys
import time

from minibox.base.lines import lines_of
from minibox.cli.declare import argument, command, option
from minibox.cli.messages import echo
from minibox.cli.parameters import complete_container, settings_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minibox.cli.declare import Context
    from minibox.engine.report.stats import Reading

FIRST_INTERVAL_S, INTERVAL_S = 0.5, 1.0
ID_SHOWN = 12
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
HEADINGS = {
    "BlockIO": "BLOCK I/O", "CPUPerc": "CPU %", "Container": "CONTAINER", "ID": "CONTAINER ID", "MemPerc": "MEM %",
    "MemUsage": "MEM USAGE / LIMIT", "Name": "NAME", "NetIO": "NET I/O", "PIDs": "PIDS",
}  # fmt: skip
COLUMNS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
HOME, CLEAR_LINE, CLEAR_BELOW, CLEAR = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"


@command(
    epilog="""\b
Examples:
  minibox stats
  minibox stats web db
  minibox stats --no-stream --format '{{.Name}}: {{.MemUsage}}'""",
)
@option("-a", "--all", "everything", is_flag=True, help="Also show stopped containers")
@option("--format", "form", metavar="FORMAT", default="", help="table, json, or a template: {{.Name}} {{.CPUPerc}}")
@option("--no-stream", is_flag=True, help="Show the usage once and exit")
@option("--no-trunc", is_flag=True, help="Show full ids")
@argument("containers", metavar="[CONTAINER...]", nargs=-1, shell_complete=complete_container)
def stats(
    ctx: Context, containers: tuple[str, ...], everything: bool, form: str, no_stream: bool, no_trunc: bool
) -> None:
    """Show how much CPU, memory, network and disk containers use, until Ctrl-C.

    CPU % is relative to one CPU: two busy CPUs are 200%. MEM USAGE excludes page cache that the kernel reclaims first.
    -- means that the kernel doesn't count this here.
    """
    from minibox.cli.format.format import format_rows
    from minibox.engine.report.stats import Meter

    settings = settings_of(ctx)
    format_rows([], form, HEADINGS, COLUMNS)  # reports an invalid template before the first interval
    meter = Meter(settings.home, containers, everything=everything)
    readings = meter.read()
    in_place = not no_stream and sys.stdout.isatty() and form.strip()[:5] in ("", "table")
    interval_s, first = FIRST_INTERVAL_S, True
    while True:
        if readings or not no_stream:
            time.sleep(interval_s)
            readings = meter.read()
        rows = [stats_row(each, no_trunc) for each in readings]
        text = format_rows(rows, form, HEADINGS, COLUMNS)
        if in_place:
            echo(frame(lines_of(text), shutil.get_terminal_size().lines, first=first), nl=False)
        elif text:
            echo(text)
        sys.stdout.flush()
        interval_s, first = INTERVAL_S, False
        if no_stream or (containers and not readings):
            return


def frame(lines: Sequence[str], height: int, *, first: bool) -> str:
    """Return what draws ``lines`` over the terminal's contents, as many as fit."""
    if len(lines) > height - 1 > 1:
        lines = [*lines[: height - 2], f"... and {len(lines) - height + 2} more"]
    return (CLEAR if first else "") + HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in lines) + CLEAR_BELOW


def stats_row(reading: Reading, no_trunc: bool = False) -> dict[str, Any]:
    """Return the fields of Docker's `stats --format`."""
    from minibox.cli.format.units import format_size

    def pair(one: int | None, other: int | None, say: Any) -> str:
        return " / ".join("--" if each is None else say(each) for each in (one, other))

    shown_id = reading.id if no_trunc else reading.id[:ID_SHOWN]
    row = {"Container": reading.name or shown_id, "ID": shown_id, "Name": reading.name}
    if not reading.running:
        return {**row, "BlockIO": "0B / 0B", "CPUPerc": "0.00%", "MemPerc": "0.00%", "MemUsage": "0B / 0B",
                "NetIO": "0B / 0B", "PIDs": "0"}  # fmt: skip
    memory, limit = reading.memory_bytes, reading.memory_limit_bytes
    return {
        **row,
        "BlockIO": pair(reading.io_read_bytes, reading.io_write_bytes, format_size),
        "CPUPerc": "--" if reading.cpu_percent is None else f"{reading.cpu_percent:.2f}%",
        "MemPerc": "--" if memory is None or not limit else f"{100 * memory / limit:.2f}%",
        "MemUsage": pair(memory, limit, format_binary),
        "NetIO": pair(reading.received_bytes, reading.sent_bytes, format_size),
        "PIDs": "--" if reading.pids is None else str(reading.pids),
    }


def format_binary(size_bytes: int) -> str:
    """Format a size like Docker's BytesSize: ``1.5MiB``."""
    size, unit = float(size_bytes), 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.4g}{UNITS[unit]}"
