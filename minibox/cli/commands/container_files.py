"""Commands for a container's files: diff, commit, export, cp."""

from __future__ import annotations

import sys

from minibox.cli.declare import argument, command, option
from minibox.cli.messages import echo
from minibox.cli.parameters import complete_container, settings_of
from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

    from minibox.cli.declare import Context


def complete_tree(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a container or an image."""
    from minibox.cli.completion import container_candidates, image_candidates

    settings = settings_of(ctx)
    return container_candidates(settings, incomplete) + image_candidates(settings, incomplete)


def complete_end(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a path of the host, or the name of a container or an image followed by a colon."""
    from click.shell_completion import CompletionItem

    if incomplete.startswith(("/", ".")):
        return [CompletionItem(incomplete, type="file")]
    names = [CompletionItem(f"{item.value}:") for item in complete_tree(ctx, param, incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


@command(
    epilog="""\b
Examples:
  minibox diff web               what the container web has changed
  minibox diff debian:12         what the topmost layer changes
  minibox diff app:1.0 app:1.1   what is different in the newer image
  minibox diff --json web app:1.1"""
)
@option("--format", "form", choices=["json"], help="Print JSON, like --json")
@option("--json", "as_json", is_flag=True, help="Print JSON: a list of objects with Kind and Path")
@argument("name", metavar="CONTAINER|IMAGE|LAYER", shell_complete=complete_tree)
@argument("other", metavar="[OTHER]", required=False, shell_complete=complete_tree)
def diff(ctx: Context, name: str, other: str | None, form: str | None, as_json: bool) -> None:
    """Show which files were added (A), changed (C) and deleted (D).

    A container is compared with its image, an image or a layer with the layer below it. With OTHER, show the changes
    from the first to OTHER. Name a layer by its diff ID, chain ID or digest, or by the first digits of one.
    """
    from minibox.engine.files.diff import diff as find

    settings = settings_of(ctx)
    found = find(settings.home.root, name, other or "", storage_driver=settings.storage_driver)
    if as_json or form:
        from minibox.cli.format.table import format_json

        echo(format_json([{"Kind": kind, "Path": path} for kind, path in found]))
        return
    for kind, path in found:
        echo(f"{kind} {_shown(path)}")


@command(
    epilog="""\b
Examples:
  minibox commit web app:1.1
  minibox commit -c 'CMD ["/srv/start"]' -m "with certificates" web app:1.2"""
)
@option("-a", "--author", metavar="TEXT", default="", help="Author, such as: Ann Lee <ann@example.com>")
@option("-c", "--change", metavar="TEXT", multiple=True, help="Apply a Dockerfile instruction: CMD, ENV, USER ...")
@option("-m", "--message", metavar="TEXT", default="", help="Set the comment in the image's history")
@option(
    "-p", "--pause", metavar="BOOL", kind="truth", default=True, help="Pause the container meanwhile  [default: true]"
)
@argument("container", shell_complete=complete_container)
@argument("image", metavar="[IMAGE[:TAG]]", required=False)
def commit(
    ctx: Context,
    container: str,
    image: str | None,
    author: str,
    change: tuple[str, ...],
    message: str,
    pause: bool,
) -> None:
    """Make an image from a container, and print the image's id.

    The image has the layers of the container's image and a new one with the container's changes, and runs like the
    container. It doesn't include volumes and other mounts.
    """
    from minibox.engine.files.commit import CommitOptions
    from minibox.engine.files.commit import commit as make

    options = CommitOptions(image or "", author, message, change, pause)
    echo(make(settings_of(ctx).home.root, container, options, _note))


@command(
    epilog="""\b
Examples:
  minibox export web > web.tar
  minibox export -o web.tar web
  minibox export web | tar -x -C /tmp/web"""
)
@option("-o", "--output", metavar="FILE", kind="path", help="Write to FILE instead of stdout")
@argument("container", shell_complete=complete_container)
def export(ctx: Context, output: str | None, container: str) -> None:
    """Write a container's root file system to a tar archive.

    The archive doesn't include volumes and other mounts.
    """
    from minibox.cli.archive_output import archive_output
    from minibox.engine.files.diff import export as write

    with archive_output("export", output) as file:
        write(settings_of(ctx).home.root, container, file)


@command(
    epilog="""\b
Examples:
  minibox cp web:/etc/hosts .             copy a file
  minibox cp ./site/. web:/srv/           copy the contents of a directory
  minibox cp web:/var/log - | tar -tv     write an archive to stdout
  tar -c site | minibox cp - web:/srv     unpack an archive from stdin
  minibox cp debian:12:/etc/os-release .  copy from an image"""
)
@option("-a", "--archive", is_flag=True, help="Keep owners and set-user-ID bits")
@option("-L", "--follow-link", is_flag=True, help="If SRC is a symlink, copy its target")
@option("-q", "--quiet", is_flag=True, help="Don't report on the terminal what was copied")
@argument("src", metavar="CONTAINER:SRC|SRC|-", shell_complete=complete_end)
@argument("dest", metavar="DEST|CONTAINER:DEST|-", shell_complete=complete_end)
def cp(ctx: Context, src: str, dest: str, archive: bool, follow_link: bool, quiet: bool) -> None:
    """Copy files between a container and the host, or from an image.

    A directory is copied with its contents: into DEST if that is a directory, or as DEST if that doesn't exist.
    `SRC/.` copies only the contents. The container may be running or stopped. root owns new files in the container, you
    own new files on the host. `-` writes an archive to stdout, or unpacks one from stdin into DEST.
    """
    from minibox.cli.archive_output import archive_stdout
    from minibox.engine.files.copy import CopyOptions, copy_in, copy_out

    settings = settings_of(ctx)
    options = CopyOptions(archive, follow_link)
    source, destination = _end(src), _end(dest)
    if (source is None) == (destination is None):
        raise UsageError(
            "copying between containers is not supported" if source else "neither SRC nor DEST is in a container",
            "copy to the host first" if source else "write CONTAINER:PATH for one of them",
        )
    if source:
        target = archive_stdout("cp", "redirect it, or name a file or directory") if dest == "-" else dest
        size = copy_out(settings.home.root, *source, target, options, settings.storage_driver)
    else:
        assert destination
        size = copy_in(settings.home.root, sys.stdin.buffer if src == "-" else src, *destination, options)
    if not quiet and "-" not in (src, dest) and sys.stdout.isatty():
        from minibox.cli.format.units import format_size

        echo(f"Successfully copied {format_size(size)} to {dest}", err=True)


def _end(word: str) -> tuple[str, str] | None:
    """Split ``NAME:PATH``; None for a path of the host, which must begin with ``/`` or ``.`` if it has a colon.

    The name of an image may have a colon, too. The path is then what follows ``:/``.
    """
    if word.startswith(("/", ".")) or ":" not in word:
        return None
    name, _, path = word.partition(":/") if ":/" in word else word.partition(":")
    if not name or word.endswith(":"):
        raise UsageError(f"{word!r} is not CONTAINER:PATH", "write CONTAINER:PATH, or ./PATH for a file of the host")
    return name, f"/{path}"


def _note(text: str) -> None:
    echo(f"minibox: {text}", err=True)


def _shown(path: str) -> str:
    from minibox.cli.format.table import printable

    return printable(path)
