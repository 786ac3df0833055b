"""What all commands use: the settings, the options of prune, and completion of names."""

from __future__ import annotations

import os

from minibox.cli.declare import option
from minibox.cli.settings import Settings, make_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    import click
    from click.shell_completion import CompletionItem

    from minibox.cli.declare import Context

    T = TypeVar("T")


def settings_of(ctx: Context) -> Settings:
    """Return the settings after checking that minibox may use their directories. Works during completion, too.

    Raises:
        UnsafeDirectory: another user could change a directory.
    """
    return ctx.obj.claimed() if isinstance(ctx.obj, Settings) else named_settings(ctx)


def prune_options(command: T) -> T:
    """Add the options that all commands have that remove what is unused."""
    matches = "Only what matches: label, label! or until"
    command = option("--filter", "filters", metavar="KEY=VALUE", multiple=True, help=matches)(command)
    return option("-f", "--force", is_flag=True, help="Don't ask")(command)


def complete_image(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of an image."""
    from minibox.cli.completion import image_candidates

    return image_candidates(settings_of(ctx), incomplete)


def complete_container(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a container."""
    from minibox.cli.completion import container_candidates

    return container_candidates(settings_of(ctx), incomplete)


def named_settings(ctx: Context) -> Settings:
    """Return the settings without that check, for commands that don't use the directories or report on them."""
    return ctx.obj if isinstance(ctx.obj, Settings) else make_settings(ctx.find_root().params, os.environ)
