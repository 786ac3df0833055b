"""Commands on images: images."""

from __future__ import annotations

import click

from minibox.cli.application import settings_of
from minibox.errors import MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.image.store import ImageStore

DIGEST_SHOWN = 12


@click.command(epilog="\b\nExamples:\n  minibox images\n  minibox images --json")
@click.option("-q", "--quiet", is_flag=True, help="Show names only")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@click.pass_context
def images(ctx: click.Context, quiet: bool, as_json: bool) -> None:
    """List the images in the store."""
    from minibox.cli.table import format_json, format_size, format_table
    from minibox.image.store import ImageStore

    store = ImageStore(settings_of(ctx).root)
    rows = [describe_image(store, name) for name in store.names()]
    if as_json:
        click.echo(format_json(rows))
    elif quiet:
        for row in rows:
            click.echo(row["name"])
    else:
        cells = [
            (row["name"], row["digest"].removeprefix("sha256:")[:DIGEST_SHOWN], row["created"][:19],
             row["error"] or format_size(row["size_bytes"]))
            for row in rows
        ]  # fmt: skip
        click.echo(format_table(("IMAGE", "DIGEST", "CREATED", "SIZE"), cells))


def describe_image(store: ImageStore, name: str) -> dict[str, Any]:
    """What the list says of one image: name, digest, created (RFC 3339), size_bytes of its layer blobs, error."""
    from minibox.image.manifest import layer_descriptors
    from minibox.image.store import parse_familiar

    row: dict[str, Any] = {"name": parse_familiar(name), "digest": "", "created": "", "size_bytes": 0, "error": ""}
    try:
        image = store.resolve(name)
        layers = layer_descriptors(store.layout, image.digest, image.config)
    except MiniboxError as error:
        return {**row, "error": str(error)}
    size_bytes = sum(descriptor["size"] for descriptor, _ in layers)
    return {**row, "digest": image.digest, "created": image.config.get("created") or "", "size_bytes": size_bytes}
