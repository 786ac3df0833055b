"""Commands that bring images in from archives, and out: import."""

from __future__ import annotations

import sys

import click

from minibox.cli.application import settings_of


@click.command(
    epilog="""\b
Examples:
  minibox import rootfs.tar.gz mine:1.0
  docker export web | minibox import - web"""
)
@click.argument("file", type=click.Path(allow_dash=True))
@click.argument("image")
@click.pass_context
def import_(ctx: click.Context, file: str, image: str) -> None:
    """Make IMAGE of FILE, the tar archive of a root file system; `-` is stdin.

    It may be compressed by gzip, zstd, bzip2 or xz.
    """
    from minibox.image.importer import import_tar
    from minibox.image.store import ImageStore

    store = ImageStore(settings_of(ctx).root)
    imported = import_tar(store, sys.stdin.buffer if file == "-" else file, image)
    click.echo(imported.digest)
