"""Commands for everything that minibox keeps on disk: system df, prune, check and boot; container prune."""

from __future__ import annotations

import time

from minibox.cli.declare import command, option
from minibox.cli.format.table import format_json, printable
from minibox.cli.messages import echo
from minibox.cli.parameters import prune_options, settings_of
from minibox.docker_words.filters import parse_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.cli.declare import Context
    from minibox.engine.upkeep.disk import DiskUsage, Share

HEADINGS = {
    "Active": "ACTIVE", "Reclaimable": "RECLAIMABLE", "Size": "SIZE", "TotalCount": "TOTAL", "Type": "TYPE",
}  # fmt: skip
IMAGE_COLUMNS = ("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers")
CONTAINER_COLUMNS = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
SNAPSHOT_HEADINGS = {"Held": "HELD", "ID": "SNAPSHOT ID", "Image": "IMAGE", "Size": "SIZE"}
VOLUME_HEADINGS = {"Links": "LINKS", "Name": "VOLUME NAME", "Size": "SIZE"}
COLOURS = {"damaged": "red", "leftover": "yellow"}
PRUNE_KEYS = ("label", "label!", "until")


@command(
    epilog="""\b
Examples:
  minibox system df
  minibox system df --verbose
  minibox system df --format '{{.Type}}: {{.Reclaimable}}'"""
)
@option("-v", "--verbose", is_flag=True, help="Show each image, container, volume and snapshot")
@option("--format", "form", metavar="FORMAT", default="", help="table, json, or a template: {{.Type}} {{.Size}}")
@option("--json", "as_json", is_flag=True, help="Print JSON: everything that --verbose shows, sizes in bytes")
def df(ctx: Context, verbose: bool, form: str, as_json: bool) -> None:
    """Show how much disk space images, containers, volumes, kept trials and snapshots use, and how much of it is unused.

    Python programs make snapshots. One that no program holds any more is removed by the next command.

    The size of an image is that of its unpacked files; its downloaded blobs are listed separately. Everything else is
    counted in whole blocks, like du does. Shared bytes belong to other images, too. To free the reclaimable space,
    use `minibox image prune --all`, `minibox rm`, `minibox volume prune` and `minibox tried NAME --discard`.
    """
    from minibox.cli.format.format import format_rows
    from minibox.engine.upkeep.disk import disk_usage

    usage = disk_usage(settings_of(ctx).home)
    if as_json:
        echo(format_json(usage.as_json()))
    elif verbose and not form:
        _print_all(usage)
    else:
        echo(format_rows([_share_row(each) for each in usage.shares], form, HEADINGS,
                               ("Type", "TotalCount", "Active", "Size", "Reclaimable")))  # fmt: skip


def _share_row(share: Share) -> dict[str, Any]:
    from minibox.cli.format.units import format_size

    percent = f" ({100 * share.reclaimable_bytes // share.size_bytes}%)" if share.size_bytes else ""
    return {
        "Active": str(share.active),
        "Reclaimable": format_size(share.reclaimable_bytes, 4) + percent,
        "Size": format_size(share.size_bytes, 4),
        "TotalCount": str(share.total),
        "Type": share.type,
    }


def _print_all(usage: DiskUsage) -> None:
    from minibox.cli.commands.image import HEADINGS as IMAGE_HEADINGS
    from minibox.cli.commands.image import image_row
    from minibox.cli.commands.ps import HEADINGS as CONTAINER_HEADINGS
    from minibox.cli.commands.ps import container_row
    from minibox.cli.format.format import format_rows
    from minibox.cli.format.units import format_size
    from minibox.cli.pull import familiar

    echo("Images space usage:\n")
    echo(format_rows([image_row(row, False) for row in usage.images], "", IMAGE_HEADINGS, IMAGE_COLUMNS))
    if usage.leftover_bytes:
        echo(f"\nAnother {format_size(usage.leftover_bytes, 4)} belong to no image.")
    echo("\nContainers space usage:\n")
    now_s = time.time()
    containers = [container_row(each, now_s, sizes=(each["SizeRw"], 0)) for each in usage.containers]
    echo(format_rows(containers, "", CONTAINER_HEADINGS, CONTAINER_COLUMNS))
    echo("\nLocal Volumes space usage:\n")
    volumes = [
        {"Links": str(len(each.volume.users)), "Name": each.volume.name, "Size": format_size(each.size_bytes)}
        for each in usage.volumes
    ]
    echo(format_rows(volumes, "", VOLUME_HEADINGS, ("Name", "Links", "Size")))
    echo("\nSnapshots space usage:\n")
    snapshots = [
        {
            "Held": "yes" if each.held else "no",
            "ID": each.frozen.id[:12],
            "Image": familiar(each.frozen.image.reference),
            "Size": format_size(each.size_bytes),
        }
        for each in usage.snapshots
    ]
    echo(format_rows(snapshots, "", SNAPSHOT_HEADINGS, ("ID", "Image", "Held", "Size")))


@command(
    epilog="""\b
Examples:
  minibox system prune
  minibox system prune --all --volumes --force"""
)
@option("-a", "--all", "everything", is_flag=True, help="Remove all images that no container uses")
@prune_options
@option("--volumes", is_flag=True, help="Also remove anonymous volumes that no container uses")
def prune(ctx: Context, everything: bool, force: bool, filters: tuple[str, ...], volumes: bool) -> int:
    """Remove stopped containers, unused networks and images, and leftovers of killed commands. Named volumes stay.

    For --filter until, an image without a creation date counts from when it came into the store.
    """
    from minibox.cli.commands.image import confirmed, print_deleted, print_pruned
    from minibox.engine.upkeep.disk import prune as remove_unused

    wanted = parse_filters(filters, PRUNE_KEYS)
    images = "all images without at least one container associated to them" if everything else "all dangling images"
    chosen = ["all stopped containers", "all networks not used by at least one container",
              *(["all anonymous volumes not used by at least one container"] if volumes else []),
              images, "unfinished downloads"]  # fmt: skip
    warning = "WARNING! This will remove:\n" + "".join(f"  - {each}\n" for each in chosen)
    if filters:
        warning += "\n  Items to be pruned will be filtered with:\n" + "".join(f"  - {each}\n" for each in filters)
    if not force and not confirmed(warning):
        return 1
    done = remove_unused(settings_of(ctx).home, everything=everything, volumes=volumes, filters=wanted)  # fmt: skip
    print_deleted("Containers", done.containers)
    print_deleted("Networks", done.networks)
    print_deleted("Volumes", done.volumes)
    print_pruned(done.images, done.freed_bytes)
    return 0


@command(
    epilog="\b\nExamples:\n  minibox container prune\n  minibox container prune --force --filter until=24h --filter label!=keep"
)
@prune_options
def prune_containers(ctx: Context, force: bool, filters: tuple[str, ...]) -> int:
    """Remove all stopped containers with their files."""
    from minibox.cli.commands.image import confirmed, print_deleted
    from minibox.cli.format.units import format_size
    from minibox.engine.upkeep.disk import prune_containers as remove_ended

    wanted = parse_filters(filters, PRUNE_KEYS)
    if not force and not confirmed("WARNING! This will remove all stopped containers."):
        return 1
    gone, freed_bytes = remove_ended(settings_of(ctx).home, filters=wanted)
    print_deleted("Containers", gone)
    echo(f"Total reclaimed space: {format_size(freed_bytes, 4)}")
    return 0


@command(
    epilog="""\b
Examples:
  minibox system check
  minibox system check --quick --json
  minibox system check --repair"""
)
@option("--quick", is_flag=True, help="Don't read the contents of blobs and layers")
@option("--repair", is_flag=True, help="Remove damaged blobs and layers, and leftovers")
@option("--json", "as_json", is_flag=True, help="Print JSON")
def check(ctx: Context, quick: bool, repair: bool, as_json: bool) -> int:
    """Check blobs, images, unpacked layers, containers and volumes on disk, and the resources of running containers.

    A blob is compared with its digest, an image with its blobs, an unpacked layer file by file with its blob. The exit
    status is 1 if something is damaged. Leftovers don't count as damage.
    """
    from click import style

    from minibox.engine.upkeep import check as engine

    settings = settings_of(ctx)
    report = engine.check(settings.home, content=not quick)
    if repair and report.findings:
        report = engine.repair(settings.home, report)
    if as_json:
        fields = ("kind", "what", "problem", "affects")
        rows = [{field: getattr(each, field) for field in fields} for each in report.findings]
        echo(format_json({"counts": report.counts, "findings": rows}))
        return int(report.damaged > 0)
    for each in report.findings:
        affects = f" (needed by {', '.join(each.affects)})" if each.affects and each.what[:6] != "image " else ""
        kind = style(each.kind.ljust(max(map(len, COLOURS))), fg=COLOURS.get(each.kind))
        echo(f"{kind}  {printable(f'{each.what}: {each.problem}{affects}')}")
    counts = ", ".join(f"{number} {noun if number != 1 else noun[:-1]}" for noun, number in report.counts.items())
    left = len(report.findings) - report.damaged
    echo(f"{counts}: {report.damaged or 'nothing'} damaged, {left or 'nothing'} left over")
    if any(each.kind == "damaged" and not each.what.startswith(("container ", "trial ")) for each in report.findings):
        lost = ", ".join(dict.fromkeys(name for each in report.findings for name in each.affects)) or "what is damaged"
        hint = f"pull or load {lost} again" if repair else "minibox system check --repair removes what is damaged"
        echo(f"hint: {hint}", err=True)
    return int(report.damaged > 0)


@command(epilog="\b\nExample:\n  minibox system boot")
def boot(ctx: Context) -> int:
    """Start containers by their restart policy. Run this once when the machine boots, for example from a service.

    It starts containers with --restart always that have run before, and containers with --restart unless-stopped that
    nobody has stopped.
    """
    from minibox.cli.for_each import for_each
    from minibox.engine.container.start import start
    from minibox.engine.upkeep.boot import wanted

    settings = settings_of(ctx)

    def act(name: str) -> str:
        return name if start(settings.home, name) else ""

    return for_each(wanted(settings.home), act)
