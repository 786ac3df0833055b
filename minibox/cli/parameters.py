"""What all commands use with click: the settings, the error for an invalid value, and completion of names."""

from __future__ import annotations

import os

import click

from minibox.cli.settings import Settings, make_settings
from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from click.decorators import FC
    from click.shell_completion import CompletionItem

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # not generic in click 8.1


class RefusedValue(click.BadParameter):
    """An invalid value, with minibox's own message and a hint that says what to write instead."""

    advice: str | None = None


class CommandWithFlags(click.Command):
    """A command whose options are written as Docker's: flags take a value, as in ``--pull=false`` and ``-q=true``, and the
    last one counts; a value may come after ``=`` also for a short option, as in ``-t=web``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {
            name: each for each in self.params if isinstance(each, click.Option) and each.is_flag for name in each.opts
        }
        short = {name for each in self.params if isinstance(each, click.Option) for name in each.opts if len(name) == 2}
        words: list[str] = []
        for position, word in enumerate(args):
            if word == "--":
                words += args[position:]
                break
            name, equals, value = word.partition("=")
            if equals and name in flags:
                words = [each for each in words if each not in flags[name].opts]
                word = name if _truth(name, value) else "".join(flags[name].secondary_opts[:1])
            elif equals and name in short:
                word = f"{name}{value}"
            words += [word] if word or not equals else []
        return super().parse_args(ctx, words)


def _truth(name: str, value: str) -> bool:
    from minibox.base.values import truth

    try:
        return truth(value)
    except ValueError as error:
        raise UsageError(f"{name} {value!r}: {error}") from None


def settings_of(ctx: click.Context) -> Settings:
    """Return the settings after checking that minibox may use their directories. Works during completion, too.

    Raises:
        UnsafeDirectory: another user could change a directory.
    """
    return ctx.obj.claimed() if isinstance(ctx.obj, Settings) else named_settings(ctx)


def prune_options(command: FC) -> FC:
    """Add the options that all commands have that remove what is unused."""
    matches = "Only what matches: label, label! or until"
    command = click.option("--filter", "filters", metavar="KEY=VALUE", multiple=True, help=matches)(command)
    return click.option("-f", "--force", is_flag=True, help="Don't ask")(command)


def complete_image(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of an image."""
    from minibox.cli.completion import image_candidates

    return image_candidates(settings_of(ctx), incomplete)


def complete_container(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a container."""
    from minibox.cli.completion import container_candidates

    return container_candidates(settings_of(ctx), incomplete)


def named_settings(ctx: click.Context) -> Settings:
    """Return the settings without that check, for commands that don't use the directories or report on them."""
    return ctx.obj if isinstance(ctx.obj, Settings) else make_settings(ctx.find_root().params, os.environ)
