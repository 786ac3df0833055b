"""Commands on what a container has changed, and for getting files in and out: diff, commit, export."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

import click

from minibox.cli.application import settings_of
from minibox.cli.container import complete_container
from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from click.shell_completion import CompletionItem


def complete_tree(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a container or an image."""
    from minibox.cli.completion import container_candidates, image_candidates

    settings = settings_of(ctx)
    return container_candidates(settings, incomplete) + image_candidates(settings, incomplete)


@click.command(
    epilog="""\b
Examples:
  minibox diff web               what the container web changed in its image
  minibox diff debian:12         what the topmost layer changed in those below
  minibox diff app:1.0 app:1.1   what is different in the newer image
  minibox diff --json web app:1.1"""
)
@click.option("--format", "form", type=click.Choice(["json"]), help="Print JSON, as --json does")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of objects with Kind and Path")
@click.argument("name", metavar="CONTAINER|IMAGE|LAYER", shell_complete=complete_tree)
@click.argument("other", metavar="[OTHER]", required=False, shell_complete=complete_tree)
@click.pass_context
def diff(ctx: click.Context, name: str, other: str | None, form: str | None, as_json: bool) -> None:
    """Show what was added (A), changed (C) and deleted (D).

    Of a container since its image, of an image or a layer since the layer below; with OTHER, what makes OTHER of the
    first. A layer is named by its diff ID, chain ID or digest, or by the first digits of one.
    """
    from minibox.engine.differences import diff as find

    settings = settings_of(ctx)
    found = find(settings.root, name, other or "", storage_driver=settings.storage_driver)
    if as_json or form:
        from minibox.cli.table import format_json

        click.echo(format_json([{"Kind": kind, "Path": path} for kind, path in found]))
        return
    for kind, path in found:
        click.echo(f"{kind} {_shown(path)}")


@click.command(
    epilog="""\b
Examples:
  minibox commit web app:1.1
  minibox commit -c 'CMD ["/srv/start"]' -m "with certificates" web app:1.2"""
)
@click.option("-a", "--author", metavar="TEXT", default="", help="Who made it: Ann Lee <ann@example.com>")
@click.option(
    "-c", "--change", metavar="TEXT", multiple=True, help="Apply a Dockerfile instruction: CMD, ENV, USER ..."
)
@click.option("-m", "--message", metavar="TEXT", default="", help="Say why, in the image's history")
@click.option(
    "-p", "--pause", metavar="BOOL", type=click.BOOL, default=True, help="Pause it meanwhile  [default: true]"
)
@click.argument("container", shell_complete=complete_container)
@click.argument("image", metavar="[IMAGE[:TAG]]", required=False)
@click.pass_context
def commit(
    ctx: click.Context,
    container: str,
    image: str | None,
    author: str,
    change: tuple[str, ...],
    message: str,
    pause: bool,
) -> None:
    """Make an image of a container, and print its id.

    It has the layers of the container's image and one more, with what changed, and is run as the container was. What
    is mounted in the container, volumes too, is not in it.
    """
    from minibox.engine.commit import CommitOptions
    from minibox.engine.commit import commit as make

    options = CommitOptions(image or "", author, message, change, pause)
    click.echo(make(settings_of(ctx).root, container, options, _note))


@click.command(
    epilog="""\b
Examples:
  minibox export web > web.tar
  minibox export -o web.tar web
  minibox export web | tar -x -C /tmp/web"""
)
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="Write to FILE instead of stdout")
@click.argument("container", shell_complete=complete_container)
@click.pass_context
def export(ctx: click.Context, output: str | None, container: str) -> None:
    """Write a container's root file system as a tar archive.

    What is mounted in the container, volumes too, is not in it.
    """
    from minibox.engine.differences import export as write

    root = settings_of(ctx).root
    if output is None or output == "-":
        write(root, container, _binary_stdout("export", "use -o FILE, or redirect it"))
        return
    with _new_file(output) as file:
        write(root, container, file)


def _note(text: str) -> None:
    click.echo(f"minibox: {text}", err=True)


def _shown(path: str) -> str:
    from minibox.cli.table import printable

    return printable(path)


def _binary_stdout(what: str, hint: str) -> BinaryIO:
    """Stdout for an archive, which a terminal has no use for."""
    if sys.stdout.isatty():
        raise UsageError(f"{what}: an archive is not written to a terminal", hint)
    return sys.stdout.buffer


@contextmanager
def _new_file(path: str) -> Iterator[BinaryIO]:
    """A file that is at ``path`` when the block has succeeded, and not before; what is no regular file is written to."""
    temporary = f"{path}.{os.getpid()}.new" if os.path.isfile(path) or not os.path.lexists(path) else path
    try:
        with open(temporary, "wb") as file:
            yield file
        if temporary != path:
            os.rename(temporary, path)
    except BaseException:
        if temporary != path and os.path.exists(temporary):
            os.unlink(temporary)
        raise
