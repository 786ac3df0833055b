"""The commands inspect and image inspect."""

from __future__ import annotations

from minibox.cli.commands.container_files import complete_tree
from minibox.cli.declare import argument, command, option
from minibox.cli.messages import echo
from minibox.cli.parameters import complete_image, settings_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from minibox.cli.declare import Context

#: Members whose keys are data. In a template, a missing key of these is not an error.
MAPS = ("Labels", "Annotations", "annotations", "ExposedPorts", "Volumes", "Ports", "Networks", "Sysctls", "Data")


@command(
    epilog="""\b
Examples:
  minibox inspect web
  minibox inspect --format '{{.State.ExitCode}}' web
  minibox inspect -f '{{range .Config.Env}}{{println .}}{{end}}' debian:12
  minibox inspect --type image --format json debian"""
)
@option("-f", "--format", "form", metavar="FORMAT", default="", help="json, or a template: {{.Id}} {{json .Config}}")
@option("-s", "--size", is_flag=True, help="Also show how much disk space a container uses")
@option("--type", "kind", choices=["container", "image"], help="Look only for these")
@argument("names", metavar="NAME|ID...", nargs=-1, required=True, shell_complete=complete_tree)
def inspect(ctx: Context, names: tuple[str, ...], form: str, size: bool, kind: str | None) -> None:
    """Show details of containers and images, as JSON with Docker's field names."""
    below = ctx.parent.info_name if ctx.parent else ""
    _show(ctx, names, form, kind or ("container" if below == "container" else ""), size)


@command(
    epilog="\b\nExamples:\n  minibox image inspect debian:12\n  minibox image inspect -f '{{.Id}} {{.Config.Cmd}}' debian:12"
)
@option("-f", "--format", "form", metavar="FORMAT", default="", help="json, or a template: {{.Id}} {{json .Config}}")
@argument("names", metavar="IMAGE...", nargs=-1, required=True, shell_complete=complete_image)
def inspect_image(ctx: Context, names: tuple[str, ...], form: str) -> None:
    """Show details of images, as JSON with Docker's field names."""
    _show(ctx, names, form, "image", False)


def _show(ctx: Context, names: tuple[str, ...], form: str, kind: str, size: bool) -> None:
    from minibox.engine.report.inspect import inspect as look

    settings = settings_of(ctx)
    show_each(names, lambda name: look(settings.home, name, kind=kind, with_size=size), form)


def show_each(names: Iterable[str], look: Callable[[str], Any], form: str) -> None:
    """Print the document that ``look`` returns for each name: as a JSON list, or by the template ``form``.

    Print everything that exists, then raise the error of the last that doesn't.
    """
    from minibox.cli.for_each import for_each
    from minibox.cli.format.format import format_documents

    documents: list[Any] = []

    def add(name: str) -> str:
        documents.append(with_maps(look(name)))
        return ""

    try:
        for_each(names, add)
    finally:
        if documents or not form:
            echo(format_documents(documents, form))


def with_maps(value: Any, key: str = "") -> Any:
    """Return ``value`` with its maps marked for templates, so that they can be told from structs."""
    from minibox.cli.format.template_functions import Map

    if isinstance(value, dict):
        kind = Map if key in MAPS else dict
        return kind((name, with_maps(item, str(name))) for name, item in value.items())
    return [with_maps(item) for item in value] if isinstance(value, list) else value
