"""The command map."""

from __future__ import annotations

from minibox.cli.declare import argument, command, option
from minibox.cli.messages import echo
from minibox.cli.parameters import complete_container, settings_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.cli.declare import Context


@command(
    epilog="""\b
Examples:
  minibox map                   the host and all running containers
  minibox map web db            only these two
  minibox map --svg map.svg     a picture, for light and dark screens
  minibox map --json"""
)
@option("--svg", metavar="FILE", kind="path", help="Draw it into FILE, for a browser or for paper")
@option("--json", "as_json", is_flag=True, help="Print JSON")
@argument("containers", metavar="[CONTAINER]...", nargs=-1, shell_complete=complete_container)
def map_(ctx: Context, containers: tuple[str, ...], svg: str | None, as_json: bool) -> None:
    """Show how the host and its containers hang together.

    Namespaces and who shares them, processes with their pids on both sides, id maps, mounts and layers, cgroups with
    limits and use, links, bridges, addresses and ports.
    """
    from minibox.engine.report.map import machine_map

    found = machine_map(settings_of(ctx).home, containers)
    if svg:
        _write(svg, found)
    elif as_json:
        from minibox.cli.format.table import format_json

        echo(format_json(found))
    else:
        from minibox.cli.format.map import tree

        echo(tree(found))


def _write(path: str, found: dict[str, Any]) -> None:
    from minibox.cli.format.map_svg import picture
    from minibox.cli.pictures import write_picture

    write_picture(path, picture(found))
