"""The click application: the tree of commands, each imported when it is used, and click's errors in minibox's words."""

from __future__ import annotations

import os

import click

from minibox.cli.clicked import RefusedValue, clicked
from minibox.cli.help import ABOUT, EPILOG, OPTIONS, USAGE, WIDTH_MAX
from minibox.cli.settings import COMPLETE_VARIABLE, make_settings
from minibox.cli.tree import COMMANDS, GROUPS, load, row_of
from minibox.errors import UsageError
from minibox.storage.snapshot import DRIVERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.cli.tree import Row

CONTEXT_SETTINGS = {"max_content_width": WIDTH_MAX}

#: Options of `docker run` that minibox lacks, and what to use instead.
DOCKER_ONLY = {
    "--volumes-from": "mount the same volumes or directories with -v",
}


class Application(click.Group):
    """A group of the commands in ``rows``; see `COMMANDS`. A command's module is imported when the command is used."""

    def __init__(self, *words: Any, rows: tuple[Row, ...] = COMMANDS, **given: Any) -> None:
        super().__init__(*words, **given)
        self.rows = rows

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for _, name, *_ in self.rows]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = row_of(self.rows, cmd_name)
        if row is None:
            return None
        if not row[2]:
            return _GROUPS[row[3]]
        found = load(row)
        return found if isinstance(found, click.Command) else clicked(found)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and not ctx.resilient_parsing:
            if args[0] not in self.list_commands(ctx):
                raise _unknown("command", args[0], self.list_commands(ctx), f"{_typed(ctx)} --help lists the commands")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[click.shell_completion.CompletionItem]:
        items = [
            click.shell_completion.CompletionItem(name, help=help_text)
            for _, name, _, _, help_text in self.rows
            if name.startswith(incomplete)
        ]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(len(name) for _, name, *_ in self.rows)
        for heading in dict.fromkeys(row[0] for row in self.rows):
            with formatter.section(heading):
                formatter.write_dl([(row[1].ljust(longest), row[4]) for row in self.rows if row[0] == heading])


@click.pass_context
def _begin(ctx: click.Context, /, version: bool, **given: Any) -> None:
    ctx.obj = make_settings(given, os.environ)
    if version:
        from minibox.engine.host.version import version_text

        click.echo(f"minibox {version_text()}")
        ctx.exit(0)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _global_option(name: str, metavar: str, text: str) -> click.Option:
    if not metavar:
        return click.Option([name], is_flag=True, help=text)
    if name != "--storage-driver":
        return click.Option([name], metavar=metavar, help=text, type=click.Path())
    return click.Option(
        [name],
        metavar=metavar,
        help=text,
        shell_complete=lambda ctx, param, incomplete: [each for each in DRIVERS if each.startswith(incomplete)],
    )


application = Application(
    "minibox",
    callback=_begin,
    params=[_global_option(*each) for each in OPTIONS],
    invoke_without_command=True,
    subcommand_metavar=USAGE,
    context_settings=CONTEXT_SETTINGS,
    help=ABOUT,
    epilog="\n\n".join(f"\b\n{each}" for each in EPILOG.split("\n\n")),
)


def _group(name: str, example: str, help_text: str) -> click.Group:
    """Make a command with subcommands, which shows its help when none is given."""

    def show_help() -> None:
        ctx = click.get_current_context()
        if ctx.invoked_subcommand is None:
            click.echo(ctx.get_help())

    return Application(
        name,
        rows=GROUPS[name],
        callback=show_help,
        invoke_without_command=True,
        subcommand_metavar=USAGE,
        context_settings=CONTEXT_SETTINGS,
        help=help_text,
        epilog=f"\b\nExample:\n  minibox {name} {example}\n\nminibox {name} COMMAND --help shows more about a command.",
    )


_GROUPS = {
    "image": _group("image", "ls", "Manage images."),
    "container": _group("container", "ls", "Manage containers."),
    "network": _group("network", "ls", "Manage networks."),
    "volume": _group("volume", "ls", "Manage volumes."),
    "healthcheck": _group("healthcheck", "run web", "Check the health of containers."),
    "builder": _group("builder", "du", "Manage the cache of minibox build."),
    "lab": _group("lab", "start 1", "Learn how containers work, in labs that check themselves."),
    "system": _group("system", "df", "Manage disk space and the whole system."),
}


def run_click(words: list[str]) -> int:
    """Parse ``words`` with click, run the command, and return its exit status.

    Raises:
        UsageError: the command line is wrong.
    """
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        from minibox.cli.completion import complete

        return complete(application, instruction)
    try:
        # Not application.main(): it exits, and replaces sys.stdout when a pipe breaks.
        with application.make_context("minibox", words) as ctx:
            status: Any = application.invoke(ctx)
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.ClickException as error:
        raise usage_error(error) from error
    return status if isinstance(status, int) else 0


def usage_error(error: click.ClickException) -> UsageError:
    """Turn an error of click into one line in minibox's words, with a hint."""
    ctx = getattr(error, "ctx", None)
    path = _typed(ctx) if ctx is not None else "minibox"
    see = f"see {path} --help"
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        if name in DOCKER_ONLY and ctx is not None and ctx.info_name in ("run", "shell"):
            return UsageError(f"unknown option {name}", hint=DOCKER_ONLY[name])
        known = [] if ctx is None else [name for param in ctx.command.get_params(ctx) for name in param.opts]
        return _unknown("option", name, [option for option in known if option.startswith("--")], see)
    if isinstance(error, click.BadOptionUsage):
        if "requires" in error.message:
            return UsageError(f"option {error.option_name} needs a value", hint=see)
        return UsageError(f"option {error.option_name} takes no value", hint=see)
    if isinstance(error, click.MissingParameter) and error.param is not None and ctx is not None:
        usage = " ".join([path, *ctx.command.collect_usage_pieces(ctx)])
        return UsageError(f"{error.param.human_readable_name} is missing", hint=f"usage: {usage}")
    if isinstance(error, RefusedValue):
        return UsageError(error.message, hint=error.advice or see)
    if isinstance(error, click.BadParameter):
        name = error.param.opts[0] if isinstance(error.param, click.Option) else _metavar(error)
        return UsageError(f"{name}: {_as_ours(error.message)}" if name else _as_ours(error.message), hint=see)
    return UsageError(_as_ours(error.format_message()), hint=see)


def _typed(ctx: click.Context) -> str:
    """Return the commands as the user types them: like `command_path`, but without the arguments of parent commands."""
    return " ".join([*([_typed(ctx.parent)] if ctx.parent is not None else []), str(ctx.info_name)])


def _metavar(error: click.BadParameter) -> str:
    return error.param.human_readable_name if error.param is not None else ""


def _as_ours(message: str) -> str:
    return (message[:1].lower() + message[1:]).removesuffix(".")


def _unknown(what: str, word: str, known: list[str], otherwise: str | None) -> UsageError:
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {close[0]}?" if close else otherwise
    return UsageError(f"unknown {what} {word}", hint=hint)
