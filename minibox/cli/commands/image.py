"""Commands for images in the store: images, tag, rmi, history, image prune, search-local."""

from __future__ import annotations

from minibox.cli.declare import argument, command, option
from minibox.cli.messages import echo
from minibox.cli.parameters import complete_image, prune_options, settings_of
from minibox.errors import MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minibox.cli.declare import Context
    from minibox.engine.upkeep.images import ImageRow, Removed

ID_SHOWN = 12
CREATED_BY_SHOWN = 45
HEADINGS = {
    "Containers": "CONTAINERS", "CreatedAt": "CREATED AT", "CreatedSince": "CREATED", "Digest": "DIGEST",
    "ID": "IMAGE ID", "Repository": "REPOSITORY", "SharedSize": "SHARED SIZE", "Size": "SIZE", "Tag": "TAG",
    "UniqueSize": "UNIQUE SIZE", "VirtualSize": "SIZE",
}  # fmt: skip
HISTORY_HEADINGS = {
    "Comment": "COMMENT", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "CreatedSince": "CREATED",
    "ID": "IMAGE", "Size": "SIZE",
}  # fmt: skip


@command(
    epilog="""\b
Examples:
  minibox images
  minibox images debian
  minibox images --filter dangling=true -q
  minibox images --format 'table {{.Repository}}\\t{{.UniqueSize}}'"""
)
@option("-a", "--all", "show_all", is_flag=True, help="No effect: minibox has no hidden images")
@option("--digests", is_flag=True, help="Show digests")
@option("-f", "--filter", "filters", metavar="KEY=VALUE", multiple=True,
              help="Show only matches: before, dangling, label, reference, since or until")  # fmt: skip
@option("--format", "form", metavar="FORMAT", default="", help="table, json, or a template: {{.ID}} {{.Size}}")
@option("--no-trunc", is_flag=True, help="Show full ids")
@option("-q", "--quiet", is_flag=True, help="Show only ids")
@option("--json", "as_json", is_flag=True, help="Print JSON: one list")
@argument("name", metavar="[REPOSITORY[:TAG]]", default="", shell_complete=complete_image)
def images(
    ctx: Context, show_all: bool, digests: bool, filters: tuple[str, ...], form: str, no_trunc: bool,
    quiet: bool, as_json: bool, name: str,
) -> None:  # fmt: skip
    """List images, newest first.

    SIZE is the size of an image's unpacked files. Shared layers count for each image; `minibox system df -v` shows
    how much is shared.
    """
    from minibox.cli.format.format import print_rows
    from minibox.cli.format.table import format_json
    from minibox.docker_words.filters import parse_filters
    from minibox.engine.upkeep.image_filters import LIST_KEYS
    from minibox.engine.upkeep.images import list_images

    wanted = parse_filters([*filters, *([f"reference={name}"] if name else [])], LIST_KEYS)
    rows = list_images(settings_of(ctx).home.root, wanted)
    if as_json:
        echo(format_json([json_row(row) for row in rows]))
    else:
        form = form or ("{{.ID}}" if quiet else "")
        columns = ["Repository", "Tag", *(["Digest"] if digests else []), "ID", "CreatedSince", "Size"]
        print_rows([image_row(row, no_trunc) for row in rows], form, HEADINGS, columns)
    for error in dict.fromkeys(row.image.error for row in rows if row.image.error):
        echo(f"minibox: damaged image: {error}", err=True)


def image_row(row: ImageRow, no_trunc: bool) -> dict[str, Any]:
    """Return the fields of Docker's `image ls --format`."""
    from minibox.cli.format.units import format_ago, format_moment, format_size
    from minibox.engine.upkeep.image_filters import created_s
    from minibox.image.layout.inventory import NONE

    image, name = row.image, row.name
    created = created_s(image)
    size = format_size(row.usage.size_bytes)
    return {
        "Containers": str(row.usage.containers),
        "CreatedAt": format_moment(created),
        "CreatedSince": format_ago(created),
        "Digest": name.digest if name else image.digest,
        "ID": shown_id(image.id, no_trunc) or NONE,
        "Repository": name.repository if name else NONE,
        "SharedSize": format_size(row.usage.shared_bytes),
        "Size": "damaged" if image.error else size,
        "Tag": name.tag if name else NONE,
        "UniqueSize": format_size(row.usage.unique_bytes),
        "VirtualSize": size,
    }


def json_row(row: ImageRow) -> dict[str, Any]:
    """Return the `images --json` entry for one name of an image."""
    image, name = row.image, row.name
    return {
        "name": name.familiar if name else "",
        "id": image.id,
        "digest": image.digest,
        "created": image.created,
        "size_bytes": row.usage.size_bytes,
        "shared_bytes": row.usage.shared_bytes,
        "unique_bytes": row.usage.unique_bytes,
        "blob_bytes": row.usage.blob_bytes,
        "containers": row.usage.containers,
        "labels": image.labels,
        "error": image.error,
    }


def shown_id(digest: str, no_trunc: bool) -> str:
    """Return an id as lists show it: 12 digits, or in full with its algorithm."""
    return digest if no_trunc else digest.removeprefix("sha256:")[:ID_SHOWN]


@command(epilog="\b\nExamples:\n  minibox tag app:1.2 app:latest\n  minibox tag 3f2a91 registry:5000/team/app:1.2")
@argument("source", metavar="SOURCE_IMAGE[:TAG]", shell_complete=complete_image)
@argument("target", metavar="TARGET_IMAGE[:TAG]", shell_complete=complete_image)
def tag(ctx: Context, source: str, target: str) -> None:
    """Give an image another name. An image that has that name already loses it."""
    from minibox.engine.upkeep.images import tag as give_name

    give_name(settings_of(ctx).home, source, target)


@command(
    epilog="""\b
Examples:
  minibox rmi app:1.1
  minibox rmi 3f2a91c0b7e5
  minibox rmi $(minibox images -q --filter dangling=true)"""
)
@option("-f", "--force", is_flag=True, help="Remove an image even if it has several names or stopped containers use it")
@option("--no-prune", is_flag=True, help="No effect: images have no parent images in minibox")
@argument("names", metavar="IMAGE...", nargs=-1, required=True, shell_complete=complete_image)
def rmi(ctx: Context, names: tuple[str, ...], force: bool, no_prune: bool) -> None:
    """Remove images.

    If an image has other names, only the given name is removed. Layers that other images or containers use stay.
    """
    from minibox.engine.upkeep.images import remove

    settings = settings_of(ctx)
    failed: MiniboxError | None = None
    for name in names:
        try:
            removed = remove(settings.home, name, force=force)
        except MiniboxError as error:
            if failed is not None:
                echo(f"minibox: {failed}", err=True)
            failed = error
        else:
            print_removed(removed, "Untagged", "Deleted")
    if failed is not None:
        raise failed


def print_removed(removed: Removed, untagged: str, deleted: str) -> None:
    """Print what was removed, one item a line, and a note if its space is freed only later."""
    for name in removed.untagged:
        echo(f"{untagged}: {name}")
    for digest in removed.deleted:
        echo(f"{deleted}: {digest}")
    if removed.deferred and removed.deleted:
        echo("minibox: another command is adding images; run minibox image prune later to free the space", err=True)


@command(
    epilog="""\b
Examples:
  minibox image prune              remove images without a name
  minibox image prune --all        remove all images that no container uses
  minibox image prune --all --force --filter until=240h"""
)
@option("-a", "--all", "everything", is_flag=True, help="Remove all images that no container uses")
@prune_options
def prune(ctx: Context, everything: bool, force: bool, filters: tuple[str, ...]) -> int:
    """Remove unused images, and the leftovers of killed commands."""
    from minibox.docker_words.filters import parse_filters, parse_truth
    from minibox.engine.upkeep.image_filters import PRUNE_KEYS
    from minibox.engine.upkeep.images import prune as remove_unused

    wanted = parse_filters(filters, PRUNE_KEYS)
    everything = everything or any(each.key == "dangling" and not parse_truth(each.value) for each in wanted)
    which = "all images without at least one container associated to them" if everything else "all dangling images"
    if not force and not confirmed(f"WARNING! This will remove {which}."):
        return 1
    settings = settings_of(ctx)
    filters_left = [each for each in wanted if each.key != "dangling"]
    print_pruned(remove_unused(settings.home, everything=everything, filters=filters_left))
    return 0


def confirmed(warning: str) -> bool:
    """Ask the user in Docker's words. Without an answer, as at the end of stdin, return False."""
    from click import Abort, confirm

    try:
        return confirm(f"{warning}\nAre you sure you want to continue?", prompt_suffix=" ")
    except Abort:
        echo()
        echo("minibox: nothing was removed; use --force to skip the question", err=True)
        return False


def print_pruned(removed: Removed, freed_bytes: int | None = None) -> None:
    """Print what `image prune` removed. ``freed_bytes``: what was freed with it, if more."""
    from minibox.cli.format.units import format_size

    if removed.untagged or removed.deleted:
        echo("Deleted Images:")
        print_removed(removed, "untagged", "deleted")
        echo()
    freed_bytes = removed.freed_bytes if freed_bytes is None else freed_bytes
    echo(f"Total reclaimed space: {format_size(freed_bytes, 4)}")


def print_deleted(kind: str, names: Sequence[str]) -> None:
    """Print the containers, networks or volumes that a `prune` removed."""
    if names:
        echo(f"Deleted {kind}:\n" + "\n".join(names) + "\n")


@command(
    docker_flags=True,
    epilog="\b\nExamples:\n  minibox history debian:12\n  minibox history --no-trunc --format '{{.CreatedBy}}' app",
)
@option("-H", "--human/--no-human", default=True, help="Show sizes and times in readable units  [default]")
@option("--format", "form", metavar="FORMAT", default="", help="table, json, or a template: {{.ID}} {{.CreatedBy}}")
@option("--no-trunc", is_flag=True, help="Show everything in full")
@option("-q", "--quiet", is_flag=True, help="Show only ids")
@argument("name", metavar="IMAGE", shell_complete=complete_image)
def history(ctx: Context, name: str, human: bool, form: str, no_trunc: bool, quiet: bool) -> None:
    """Show the build steps of an image, newest first. SIZE is that of the step's layer, unpacked if it has been unpacked."""
    from minibox.cli.format.format import print_rows
    from minibox.engine.upkeep.images import history_of

    rows = [_history_row(step, human, no_trunc) for step in history_of(settings_of(ctx).home.root, name)]
    columns = ["ID", "CreatedSince" if human else "CreatedAt", "CreatedBy", "Size", "Comment"]
    print_rows(rows, form or ("{{.ID}}" if quiet else ""), HISTORY_HEADINGS, columns)


def _history_row(step: dict[str, Any], human: bool, no_trunc: bool) -> dict[str, Any]:
    from minibox.cli.format.units import format_ago, format_rfc3339, format_size

    words = " ".join(step["created_by"].split()) if not no_trunc else step["created_by"].replace("\t", " ")
    if not no_trunc and len(words) > CREATED_BY_SHOWN:
        words = words[: CREATED_BY_SHOWN - 1] + "…"
    return {
        "Comment": step["comment"],
        "CreatedAt": format_rfc3339(step["created_s"]),
        "CreatedBy": words,
        "CreatedSince": format_ago(step["created_s"]),
        "ID": shown_id(step["id"], no_trunc) if step["id"] else "<missing>",
        "Size": format_size(step["size_bytes"]) if human else str(step["size_bytes"]),
    }


@command(
    epilog="""\b
Examples:
  minibox search-local python
  minibox search-local --file /usr/bin/python3
  minibox search-local --file '/usr/lib/*/libssl.so.3' debian"""
)
@option("--file", "path", metavar="PATH", default="", help="Find images that contain this file; * and ? are wildcards")
@option("--format", "form", metavar="FORMAT", default="", help="table, json, or a template: {{.Name}} {{.Match}}")
@option("--no-trunc", is_flag=True, help="Show full ids and matches")
@argument("term", metavar="[TERM]", default="")
def search_local(ctx: Context, term: str, path: str, form: str, no_trunc: bool) -> None:
    """Find images in the store by name, id, label or annotation, or by a file in them.

    TERM matches anywhere in the text, in upper or lower case.
    """
    from minibox.cli.format.format import print_rows
    from minibox.engine.resources.search import search
    from minibox.errors import UsageError

    if not term and not path:
        raise UsageError("nothing to search for", "give a word, or --file PATH")
    settings = settings_of(ctx)
    found = search(settings.home.root, term, path, storage_driver=settings.storage_driver)
    for note in found.notes:
        echo(f"minibox: {note}", err=True)
    headings = {"ID": "IMAGE ID", "Match": "MATCH", "Name": "NAME"}
    rows = [
        {"ID": shown_id(each.id, no_trunc), "Match": each.match if no_trunc else each.match[:60], "Name": each.name}
        for each in found.matches
    ]
    print_rows(rows, form, headings, ["Name", "ID", "Match"])
