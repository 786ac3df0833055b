"""Commands for volumes: volume create, ls, inspect, rm, prune."""

from __future__ import annotations

from minibox.cli.declare import argument, command, option
from minibox.cli.for_each import for_each
from minibox.cli.messages import echo
from minibox.cli.parameters import settings_of
from minibox.errors import MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import click
    from click.shell_completion import CompletionItem

    from minibox.cli.declare import Context
    from minibox.engine.resources.volumes import StoredVolume

HEADINGS = {
    "Availability": "AVAILABILITY", "Driver": "DRIVER", "Group": "GROUP", "Labels": "LABELS", "Links": "LINKS",
    "Mountpoint": "MOUNTPOINT", "Name": "VOLUME NAME", "Scope": "SCOPE", "Size": "SIZE", "Status": "STATUS",
}  # fmt: skip
UNKNOWN = "N/A"


def complete_volume(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a volume."""
    from click.shell_completion import CompletionItem

    from minibox.engine.resources.volumes import volumes

    try:
        names = [each.name for each in volumes(settings_of(ctx).home.root)]
    except (MiniboxError, OSError):
        names = []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@command(
    epilog="\b\nExamples:\n  minibox volume create data\n  minibox volume create --label team=web logs\n  minibox volume create"
)
@option("-d", "--driver", metavar="NAME", default="local", help="Only local is supported  [default: local]")
@option("-l", "--label", "labels", metavar="KEY[=VALUE]", multiple=True, help="Add a label")
@option("-o", "--opt", "options", metavar="KEY=VALUE", multiple=True, help="Driver option; the local driver has none")
@argument("name", metavar="[VOLUME]", default="")
def create(ctx: Context, driver: str, labels: tuple[str, ...], options: tuple[str, ...], name: str) -> None:
    """Create a volume and print its name. Without VOLUME, minibox makes a name up. An existing volume isn't changed.

    When a container first mounts the volume, it is filled with the image's files at that path. `run -v NAME:/PATH`
    also creates volumes.
    """
    from minibox.engine.resources.volumes import create as make

    echo(make(settings_of(ctx).home, name, labels=labels, driver=driver, options=options))


@command(
    epilog="""\b
Examples:
  minibox volume ls
  minibox volume ls --filter dangling=true -q
  minibox volume ls --format '{{.Name}}: {{.Mountpoint}}'"""
)
@option("-f", "--filter", "filters", metavar="KEY=VALUE", multiple=True,
              help="Show only matches: dangling, driver, label or name")  # fmt: skip
@option("--format", "form", metavar="FORMAT", default="", help="table, json, or a template: {{.Name}} {{.Labels}}")
@option("-q", "--quiet", is_flag=True, help="Show only names")
def ls(ctx: Context, filters: tuple[str, ...], form: str, quiet: bool) -> None:
    """List volumes. Anonymous volumes belong to their container and aren't listed; `minibox inspect` shows them."""
    from minibox.cli.format.format import print_rows
    from minibox.engine.resources.volumes import parse_list_filters, passes, volumes

    wanted = parse_list_filters(filters)
    rows = [_row(each) for each in volumes(settings_of(ctx).home.root) if passes(each, wanted)]
    print_rows(rows, form or ("{{.Name}}" if quiet else ""), HEADINGS, ("Driver", "Name"))


def _row(volume: StoredVolume) -> dict[str, Any]:
    """Return the fields of Docker's `volume ls --format`."""
    return {
        "Availability": UNKNOWN,
        "Driver": "local",
        "Group": UNKNOWN,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(volume.labels.items())),
        "Links": UNKNOWN,
        "Mountpoint": volume.path,
        "Name": volume.name,
        "Scope": "local",
        "Size": UNKNOWN,
        "Status": UNKNOWN,
    }


@command(epilog="\b\nExamples:\n  minibox volume inspect data\n  minibox volume inspect -f '{{.Mountpoint}}' data")
@option("-f", "--format", "form", metavar="FORMAT", default="", help="json, or a template: {{.Name}} {{json .Labels}}")
@argument("names", metavar="VOLUME...", nargs=-1, required=True, shell_complete=complete_volume)
def inspect(ctx: Context, names: tuple[str, ...], form: str) -> None:
    """Show details of volumes, as JSON with Docker's field names."""
    from minibox.cli.commands.inspect import show_each
    from minibox.engine.resources.volumes import inspect as look

    show_each(names, lambda name: look(settings_of(ctx).home.root, name).document(), form)


@command(epilog="\b\nExamples:\n  minibox volume rm data\n  minibox volume rm $(minibox volume ls -q -f dangling=true)")
@option("-f", "--force", is_flag=True, help="Ignore volumes that don't exist")
@argument("names", metavar="VOLUME...", nargs=-1, required=True, shell_complete=complete_volume)
def rm(ctx: Context, names: tuple[str, ...], force: bool) -> int:
    """Remove volumes and their contents. A volume that a container uses, running or not, can't be removed."""
    from minibox.engine.container.collection import collect
    from minibox.engine.resources.volumes import remove

    settings = settings_of(ctx)
    collect(settings.home)  # killed containers no longer use their volumes

    return for_each(names, lambda name: remove(settings.home, name, force=force))


@command(
    epilog="""\b
Examples:
  minibox volume prune          remove volumes whose name was made up
  minibox volume prune --all    also remove volumes with a name of yours"""
)
@option("-a", "--all", "everything", is_flag=True, help="Also remove volumes that you named")
@option("-f", "--force", is_flag=True, help="Don't ask")
@option("--filter", "filters", metavar="KEY=VALUE", multiple=True, help="Only what matches: label, label! or all")
def prune(ctx: Context, everything: bool, force: bool, filters: tuple[str, ...]) -> int:
    """Remove volumes that no container uses, running or not."""
    from minibox.cli.commands.image import confirmed, print_deleted
    from minibox.cli.format.units import format_size
    from minibox.engine.container.collection import collect
    from minibox.engine.resources.volumes import parse_prune_filters
    from minibox.engine.resources.volumes import prune as remove_unused

    said_all, wanted = parse_prune_filters(filters)
    everything = everything or said_all
    which = "all" if everything else "anonymous"
    if not force and not confirmed(
        f"WARNING! This will remove {which} local volumes not used by at least one container."
    ):
        return 1
    settings = settings_of(ctx)
    collect(settings.home)
    gone, freed = remove_unused(settings.home, everything=everything, filters=wanted)
    print_deleted("Volumes", gone)
    echo(f"Total reclaimed space: {format_size(freed, 4)}")
    return 0
