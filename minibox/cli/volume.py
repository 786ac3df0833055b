"""Commands on volumes: volume create, ls, inspect, rm, prune."""

from __future__ import annotations

import click

from minibox.cli.application import settings_of
from minibox.cli.several import for_each
from minibox.errors import MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from click.shell_completion import CompletionItem

    from minibox.engine.volume_store import StoredVolume

HEADINGS = {
    "Availability": "AVAILABILITY", "Driver": "DRIVER", "Group": "GROUP", "Labels": "LABELS", "Links": "LINKS",
    "Mountpoint": "MOUNTPOINT", "Name": "VOLUME NAME", "Scope": "SCOPE", "Size": "SIZE", "Status": "STATUS",
}  # fmt: skip
UNKNOWN = "N/A"


def complete_volume(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of the volumes."""
    from minibox.engine.volume_store import volumes

    try:
        names = [each.name for each in volumes(settings_of(ctx).root)]
    except (MiniboxError, OSError):
        names = []
    return [click.shell_completion.CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command(
    epilog="\b\nExamples:\n  minibox volume create data\n  minibox volume create --label team=web logs\n  minibox volume create"
)
@click.option("-d", "--driver", metavar="NAME", default="local", help="There is local only  [default: local]")
@click.option("-l", "--label", "labels", metavar="KEY[=VALUE]", multiple=True, help="Give it a label")
@click.option(
    "-o", "--opt", "options", metavar="KEY=VALUE", multiple=True, help="An option of a driver: local has none"
)
@click.argument("name", metavar="[VOLUME]", default="")
@click.pass_context
def create(ctx: click.Context, driver: str, labels: tuple[str, ...], options: tuple[str, ...], name: str) -> None:
    """Make a volume and print its name, which is made up when none is given. One that is there stays as it is.

    The first container that mounts it fills it with what its image has there; so does `run -v NAME:/PATH`, which makes
    a volume by itself.
    """
    from minibox.engine.volume_store import create as make

    settings = settings_of(ctx)
    click.echo(make(settings.root, name, labels=labels, driver=driver, options=options, runroot=settings.runroot))


@click.command(
    epilog="""\b
Examples:
  minibox volume ls
  minibox volume ls --filter dangling=true -q
  minibox volume ls --format '{{.Name}}: {{.Mountpoint}}'"""
)
@click.option("-f", "--filter", "filters", metavar="KEY=VALUE", multiple=True,
              help="Show what fits: dangling, driver, label or name")  # fmt: skip
@click.option(
    "--format", "form", metavar="FORMAT", default="", help="table, json, or a template: {{.Name}} {{.Labels}}"
)
@click.option("-q", "--quiet", is_flag=True, help="Show names only")
@click.pass_context
def ls(ctx: click.Context, filters: tuple[str, ...], form: str, quiet: bool) -> None:
    """List volumes. Those that a container made without a name are part of it: `minibox inspect` shows them."""
    from minibox.cli.format import format_rows
    from minibox.engine.volume_store import parse_list_filters, passes, volumes

    wanted = parse_list_filters(filters)
    rows = [_row(each) for each in volumes(settings_of(ctx).root) if passes(each, wanted)]
    text = format_rows(rows, form or ("{{.Name}}" if quiet else ""), HEADINGS, ("Driver", "Name"))
    if text:
        click.echo(text)


def _row(volume: StoredVolume) -> dict[str, Any]:
    """The fields of Docker's `volume ls --format`."""
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


@click.command(
    epilog="\b\nExamples:\n  minibox volume inspect data\n  minibox volume inspect -f '{{.Mountpoint}}' data"
)
@click.option(
    "-f", "--format", "form", metavar="FORMAT", default="", help="json, or a template: {{.Name}} {{json .Labels}}"
)
@click.argument("names", metavar="VOLUME...", nargs=-1, required=True, shell_complete=complete_volume)
@click.pass_context
def inspect(ctx: click.Context, names: tuple[str, ...], form: str) -> None:
    """Show all about volumes, as JSON with the names of fields that Docker has."""
    from minibox.cli.format import format_documents
    from minibox.cli.inspect import with_maps
    from minibox.engine.volume_store import inspect as look

    documents: list[Any] = []

    def add(name: str) -> str:
        documents.append(with_maps(look(settings_of(ctx).root, name).document()))
        return ""

    try:
        for_each(names, add)
    finally:
        if documents or not form:
            click.echo(format_documents(documents, form))


@click.command(
    epilog="\b\nExamples:\n  minibox volume rm data\n  minibox volume rm $(minibox volume ls -q -f dangling=true)"
)
@click.option("-f", "--force", is_flag=True, help="One that isn't there is fine")
@click.argument("names", metavar="VOLUME...", nargs=-1, required=True, shell_complete=complete_volume)
@click.pass_context
def rm(ctx: click.Context, names: tuple[str, ...], force: bool) -> int:
    """Remove volumes with all that is in them. A volume that a container has, running or not, stays."""
    from minibox.engine.removal import collect
    from minibox.engine.volume_store import remove

    settings = settings_of(ctx)
    collect(settings.root, settings.runroot)  # who was killed has nothing

    return for_each(names, lambda name: remove(settings.root, name, force=force, runroot=settings.runroot))


@click.command(
    epilog="""\b
Examples:
  minibox volume prune          volumes whose name was made up
  minibox volume prune --all    those that were given one, too"""
)
@click.option("-a", "--all", "everything", is_flag=True, help="Remove volumes that were given a name, too")
@click.option("-f", "--force", is_flag=True, help="Don't ask")
@click.option("--filter", "filters", metavar="KEY=VALUE", multiple=True, help="Only what fits: label, label! or all")
@click.pass_context
def prune(ctx: click.Context, everything: bool, force: bool, filters: tuple[str, ...]) -> int:
    """Remove volumes that no container has, running or not."""
    from minibox.cli.image import confirmed
    from minibox.cli.units import format_size
    from minibox.engine.removal import collect
    from minibox.engine.volume_store import parse_prune_filters
    from minibox.engine.volume_store import prune as remove_unused

    said_all, wanted = parse_prune_filters(filters)
    everything = everything or said_all
    which = "all" if everything else "anonymous"
    if not force and not confirmed(
        f"WARNING! This will remove {which} local volumes not used by at least one container."
    ):
        return 1
    settings = settings_of(ctx)
    collect(settings.root, settings.runroot)
    gone, freed = remove_unused(settings.root, everything=everything, filters=wanted, runroot=settings.runroot)
    if gone:
        click.echo("Deleted Volumes:\n" + "\n".join(gone) + "\n")
    click.echo(f"Total reclaimed space: {format_size(freed, 4)}")
    return 0
