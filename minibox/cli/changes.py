"""Commands on what a container has changed, and for getting files in and out: diff, commit, export, cp."""

from __future__ import annotations

import sys

import click

from minibox.cli.application import ParamType, complete_container, settings_of
from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from click.shell_completion import CompletionItem


def complete_tree(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a container or an image."""
    from minibox.cli.completion import container_candidates, image_candidates

    settings = settings_of(ctx)
    return container_candidates(settings, incomplete) + image_candidates(settings, incomplete)


def complete_end(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a path of the host's, or the name of a container or an image with its colon."""
    from click.shell_completion import CompletionItem

    if incomplete.startswith(("/", ".")):
        return [CompletionItem(incomplete, type="file")]
    names = [CompletionItem(f"{item.value}:") for item in complete_tree(ctx, param, incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


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


class Truth(ParamType):
    """Docker's booleans, also behind a short option: ``-p=false``."""

    name = "bool"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        from minibox.cli.run_options import truth

        if isinstance(value, bool):
            return value
        try:
            return truth(str(value).removeprefix("="))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


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
@click.option("-p", "--pause", metavar="BOOL", type=Truth(), default=True, help="Pause it meanwhile  [default: true]")
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
    from minibox.cli.output import archive_output
    from minibox.engine.differences import export as write

    with archive_output("export", output) as file:
        write(settings_of(ctx).root, container, file)


@click.command(
    epilog="""\b
Examples:
  minibox cp web:/etc/hosts .             a file, under its name
  minibox cp ./site/. web:/srv/           what is in a directory
  minibox cp web:/var/log - | tar -tv     an archive on stdout
  tar -c site | minibox cp - web:/srv     and one from stdin
  minibox cp debian:12:/etc/os-release .  out of an image"""
)
@click.option("-a", "--archive", is_flag=True, help="Keep owners and set-user-ID bits")
@click.option("-L", "--follow-link", is_flag=True, help="Where SRC is a symlink, copy what it leads to")
@click.option("-q", "--quiet", is_flag=True, help="Don't say what was copied, which is said on a terminal only")
@click.argument("src", metavar="CONTAINER:SRC|SRC|-", shell_complete=complete_end)
@click.argument("dest", metavar="DEST|CONTAINER:DEST|-", shell_complete=complete_end)
@click.pass_context
def cp(ctx: click.Context, src: str, dest: str, archive: bool, follow_link: bool, quiet: bool) -> None:
    """Copy files between a container and the host, or out of an image.

    A directory is copied with all that is in it: into DEST where DEST is a directory, as DEST where it isn't there;
    `SRC/.` means what is in it. The container may run or have ended. What is made in it belongs to root, and what is
    made on the host to you. With `-` an archive is written to stdout, or read from stdin and unpacked into DEST.
    """
    from minibox.cli.output import archive_stdout
    from minibox.engine.copy import CopyOptions, copy_in, copy_out

    settings = settings_of(ctx)
    options = CopyOptions(archive, follow_link)
    source, destination = _end(src), _end(dest)
    if (source is None) == (destination is None):
        raise UsageError(
            "copying from container to container is not supported" if source else "neither end is a container",
            "copy to the host first" if source else "write CONTAINER:PATH for one of the two",
        )
    if source:
        target = archive_stdout("cp", "redirect it, or name a file or directory") if dest == "-" else dest
        size = copy_out(settings.root, *source, target, options, settings.storage_driver)
    else:
        assert destination
        size = copy_in(settings.root, sys.stdin.buffer if src == "-" else src, *destination, options)
    if not quiet and "-" not in (src, dest) and sys.stdout.isatty():
        from minibox.cli.units import format_size

        click.echo(f"Successfully copied {format_size(size)} to {dest}", err=True)


def _end(word: str) -> tuple[str, str] | None:
    """Name and path of ``NAME:PATH``; None for a path of the host's, which begins with ``/`` or ``.`` if it has a colon.

    The name of an image may have a colon too: then the path is what follows ``:/``.
    """
    if word.startswith(("/", ".")) or ":" not in word:
        return None
    name, _, path = word.partition(":/") if ":/" in word else word.partition(":")
    if not name or word.endswith(":"):
        raise UsageError(
            f"{word!r} names no file of a container", "write CONTAINER:PATH, or ./PATH for a file of that name"
        )
    return name, f"/{path}"


def _note(text: str) -> None:
    click.echo(f"minibox: {text}", err=True)


def _shown(path: str) -> str:
    from minibox.cli.table import printable

    return printable(path)
