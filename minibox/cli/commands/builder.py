"""`minibox builder du` and `minibox builder prune`."""

from __future__ import annotations

from minibox.cli.declare import command, option
from minibox.cli.format.table import format_json, printable
from minibox.cli.format.units import format_ago, format_size
from minibox.cli.messages import echo
from minibox.cli.parameters import settings_of
from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.build.cache import Stored
    from minibox.cli.declare import Context

HEADINGS = {"ID": "ID", "Size": "SIZE", "LastUsed": "LAST USED", "InUse": "IN USE", "Line": "LINE"}
ID_SHOWN, LINE_SHOWN = 12, 60


@command(
    epilog="""\b
Examples:
  minibox builder du
  minibox builder du --json"""
)
@option("--json", "as_json", is_flag=True, help="Print JSON: one list")
def du(ctx: Context, as_json: bool) -> None:
    """Show the disk space of the build cache, line by line."""
    from minibox.build.upkeep import usage
    from minibox.cli.format.format import format_rows

    found, mounts = usage(settings_of(ctx).home.root)
    if as_json:
        echo(format_json([_document(each) for each in found.lines]))
        return
    rows = [
        {
            "ID": each.line.key.id[:ID_SHOWN],
            "Size": format_size(each.line.size_bytes),
            "LastUsed": format_ago(each.used_s),
            "InUse": str(each.in_use).lower(),
            "Line": printable(each.line.text)[:LINE_SHOWN],
        }
        for each in found.lines
    ]
    echo(format_rows(rows, "", HEADINGS, tuple(HEADINGS)))
    echo(f"\nLines:\t\t{format_size(found.bytes_of_lines)}")
    echo(f"Cache mounts:\t{format_size(sum(each.size_bytes for each in mounts))}")
    echo(f"Notes:\t\t{format_size(found.bytes_of_notes)}")


@command(
    epilog="""\b
Examples:
  minibox builder prune --force
  minibox builder prune --filter until=24h
  minibox builder prune --all --keep-storage 2g"""
)
@option("-a", "--all", "everything", is_flag=True, help="Remove the directories of cache mounts, too")
@option("--filter", "filters", metavar="KEY=VALUE", multiple=True, help="Only what matches: until=24h")
@option("--keep-storage", metavar="SIZE", default="", help="Keep this much, the last used first")
@option("-f", "--force", is_flag=True, help="Don't ask")
def prune(ctx: Context, everything: bool, filters: tuple[str, ...], keep_storage: str, force: bool) -> None:
    """Remove lines of the build cache that no build uses.

    Layers that images need stay: only their lines are forgotten.
    """
    from minibox.base.sizes import parse_size
    from minibox.build.upkeep import prune as prune_cache

    unused_s = _unused_s(filters)
    try:
        keep_bytes = parse_size(keep_storage) if keep_storage else -1
    except ValueError as error:
        raise UsageError(f"--keep-storage {keep_storage!r}: {error}") from None
    from click import confirm

    if not force and not confirm("Remove all lines of the build cache that no build uses?", err=True):
        return
    done = prune_cache(settings_of(ctx).home.root, unused_s=unused_s, keep_bytes=keep_bytes, mounts=everything)
    for each in done.lines:
        echo(each.line.key.id)
    echo(f"Total:\t{format_size(done.freed_bytes)}")


def _unused_s(filters: tuple[str, ...]) -> float:
    from minibox.base.values import parse_duration_ns

    found = 0.0
    for text in filters:
        name, _, value = text.partition("=")
        if name not in ("until", "unused-for"):
            raise UsageError(f"invalid filter {text!r}", "write --filter until=24h")
        try:
            found = max(found, parse_duration_ns(value) / 1e9)
        except ValueError as error:
            raise UsageError(f"invalid filter {text!r}: {error}") from None
    return found


def _document(each: Stored) -> dict[str, object]:
    line = each.line
    return {
        "Driver": each.driver,
        "ID": line.key.id,
        "InUse": each.in_use,
        "LastUsed": each.used_s,
        "Layer": line.own_layer,
        "Line": line.text,
        "Made": line.made_s,
        "MadeBy": line.made_by,
        "Parent": line.key.parent,
        "Size": line.size_bytes,
    }
