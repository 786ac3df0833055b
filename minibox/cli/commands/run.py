"""The commands run, shell, create and exec, which have tables of options, and what other commands share with them."""

from __future__ import annotations

import click

from minibox.cli import exec_options
from minibox.cli.clicked import ParamType, RefusedValue
from minibox.cli.parameters import complete_container, complete_image, settings_of
from minibox.cli.run_options import BY_NAME, OPTIONS, Option, convert, make_options, read_words
from minibox.cli.run_refused import REFUSED
from minibox.engine.container.exec import ExecOptions
from minibox.engine.spec.options import RunOptions
from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from click.shell_completion import CompletionItem

DEFAULT_IMAGE = "base"

ADVICE = {
    "size": "write a number and a unit: 512m, 2g, 65536k",
    "float": "for example 2 or 0.5",
    "duration": "write numbers and units: 5s, 1m30s, 500ms",
    "flag": "write true, false, or no value",
}


class Value(ParamType):
    """The click type of an option in the table."""

    name = "value"

    def __init__(self, option: Option) -> None:
        self.option = option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return convert(self.option, value)
        except ValueError as error:
            raise refused(self.option, value, str(error), ctx, param) from None

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from minibox.cli.completion import candidates, network_candidates

        if self.option.complete == "network":
            return network_candidates(settings_of(ctx), incomplete)
        if self.option.kind == "choice":
            return [
                click.shell_completion.CompletionItem(word)
                for word in self.option.choices
                if word.startswith(incomplete)
            ]
        return candidates(self.option.complete, incomplete)


class Flag(click.Option):
    """A flag that always has a value: `RunCommand.parse_args` adds it."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        parser.add_option(obj=self, opts=self.opts, dest=self.name, action="store", nargs=1)


class RunCommand(click.Command):
    """A command with the options of a table. They are read by Docker's rules and grouped in the help."""

    table: tuple[Option, ...] = OPTIONS
    by_name: dict[str, Option] = BY_NAME

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        read, left = read_words(args, self.by_name)
        words = []
        for option, value in read:
            try:
                convert(option, value)  # of a repeated option, click checks only the last
            except ValueError as error:
                raise refused(option, value, str(error), ctx) from None
            words.append(f"{option.names[0]}={value}")
        if not ctx.resilient_parsing:
            refuse_unread(left, ctx, self.by_name)
        return super().parse_args(ctx, words + left)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(len(spelling(option)) for option in self.table)
        groups = list(dict.fromkeys(option.group for option in self.table))
        for group in groups:
            rows = [(spelling(option), option.help) for option in self.table if option.group == group]
            if group == groups[-1]:
                rows.append(("    --help", "Show this message and exit"))
            with formatter.section(group):
                formatter.write_dl([(name.ljust(widest), text) for name, text in rows], col_max=widest)


def refuse_unread(left: list[str], ctx: click.Context, by_name: dict[str, Option]) -> None:
    """Raise an error if the first remaining word is an unknown option, or an option without its value."""
    word = left[0] if left else ""
    if word[:1] != "-" or word in ("-", "--", "--help"):
        return
    names = [word.partition("=")[0]] if word[:2] == "--" else [f"-{letter}" for letter in word[1:]]
    for name in names:
        if name not in by_name:
            if name in REFUSED:
                raise UsageError(f"{name} is not supported", REFUSED[name])
            raise click.NoSuchOption(name, ctx=ctx)
    raise click.BadOptionUsage(names[-1], f"option {names[-1]} requires a value", ctx=ctx)


def refused(
    option: Option, value: str, why: str, ctx: click.Context | None, param: click.Parameter | None = None
) -> RefusedValue:
    """Return the error for an invalid value."""
    error = RefusedValue(f"invalid value {value!r} for {option.names[0]}: {why}", ctx, param)
    error.advice = f"one of {', '.join(option.choices)}" if option.kind == "choice" else ADVICE.get(option.kind)
    return error


def spelling(option: Option) -> str:
    """Return an option as help shows it: ``-e, --env NAME[=VALUE]``."""
    long, *others = option.names
    short = [name for name in others if name[:2] != "--"]
    return f"{short[0]}, {long} {option.metavar}" if short else f"    {long} {option.metavar}"


def table_parameters(table: tuple[Option, ...], defaults: type) -> list[click.Parameter]:
    """Return the click parameters of a table; ``defaults`` has the default of each flag."""
    parameters: list[click.Parameter] = []
    for option in table:
        names, kind = [option.field, *option.names], option.kind
        if kind == "flag":
            default = getattr(defaults, option.field)
            parameters.append(Flag(names, is_flag=True, type=click.BOOL, help=option.help, default=default))
        else:
            parameters.append(click.Option(names, type=Value(option), multiple=kind == "list", help=option.help))
    return parameters


def run_parameters(*, for_shell: bool = False) -> list[click.Parameter]:
    """Return the click parameters of `OPTIONS`, the image and the command.

    ``for_shell``: the image is optional, and the command, which is refused later, isn't shown.
    """
    parameters = table_parameters(OPTIONS, RunOptions)
    parameters.append(click.Argument(["image"], required=not for_shell, shell_complete=complete_image))
    metavar = "" if for_shell else "[COMMAND [ARG]...]"
    parameters.append(click.Argument(["command"], nargs=-1, type=click.UNPROCESSED, metavar=metavar))
    return parameters


def options_of(params: dict[str, Any]) -> RunOptions:
    """Make `RunOptions` from click's parameters."""
    given = dict(params)
    image, command = given.pop("image"), given.pop("command")
    return make_options(values_of(given), [DEFAULT_IMAGE if image is None else image, *command])


def values_of(given: dict[str, Any]) -> dict[str, Any]:
    """Convert click's parameters to the form of `parse_values`."""
    values = {field: list(value) if isinstance(value, tuple) else value for field, value in given.items()}
    return {field: value for field, value in values.items() if value is not None}


def _start(**params: Any) -> int:
    from minibox.cli.foreground import start

    ctx = click.get_current_context()
    return start(str(ctx.info_name), options_of(params), settings_of(ctx))


run = RunCommand(
    "run",
    callback=_start,
    params=run_parameters(),
    context_settings={"allow_interspersed_args": False},
    help="""Run a command in a new container and wait for it.

    The options are those of `docker run`. They come before IMAGE; everything after IMAGE is the command.
    The exit status is the command's, or 128+N if signal N ended it, 127 if the command wasn't found, 126 if it can't be
    executed, 125 if minibox failed.""",
    epilog="""\b
Examples:
  minibox run --rm base echo hello
  minibox run -it --rm base sh
  minibox run --rm -v "$PWD:/work" -w /work base ls -l
  minibox run --rm -m 256m --cpus 0.5 --network none base sleep 1""",
)

shell = RunCommand(
    "shell",
    callback=_start,
    params=run_parameters(for_shell=True),
    context_settings={"allow_interspersed_args": False},
    help="""Open a shell in a new container of IMAGE, which is removed at the end.

    This is `minibox run -it --rm IMAGE` with bash, zsh or sh, whichever the image has, and takes the same options. The
    default IMAGE is `base`. Without a terminal, the shell reads commands from stdin.

    You can name a container instead of an image. The shell then runs in that container, or if it is stopped, on its
    files.""",
    epilog="""\b
Examples:
  minibox shell
  minibox shell --network none -v "$PWD:/work" -w /work base
  echo "cat /proc/self/status" | minibox shell base""",
)


def _create(**params: Any) -> int:
    from minibox.cli.foreground import create as make

    return make(options_of(params), settings_of(click.get_current_context()))


create = RunCommand(
    "create",
    callback=_create,
    params=run_parameters(),
    context_settings={"allow_interspersed_args": False},
    help="""Create a container without starting it, and print its id. `minibox start` starts it.

    The options are those of `minibox run`.""",
    epilog="""\b
Example:
  minibox create --name web -v "$PWD:/srv" base httpd -f
  minibox start web""",
)


class ExecCommand(RunCommand):
    table: tuple[Option, ...] = exec_options.OPTIONS
    by_name: dict[str, Option] = exec_options.BY_NAME


def _exec(container: str, command: tuple[str, ...], **params: Any) -> int:
    from minibox.engine.container.exec import exec_

    settings = settings_of(click.get_current_context())
    name, options = exec_options_of({"container": container, "command": command, **params})
    return exec_(settings.home, name, options)


def exec_options_of(params: dict[str, Any]) -> tuple[str, ExecOptions]:
    """Return the container, and what is to be executed in it, of click's parameters."""
    values = {**params}
    name, command = values.pop("container"), values.pop("command")
    return name, exec_options.make_options(values_of(values), list(command))


exec_ = ExecCommand(
    "exec",
    callback=_exec,
    params=[
        *table_parameters(exec_options.OPTIONS, ExecOptions),
        click.Argument(["container"], shell_complete=complete_container),
        click.Argument(["command"], nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARG]..."),
    ],
    context_settings={"allow_interspersed_args": False},
    help="""Run a command in a running container.

    The command is isolated like the container: same namespaces, cgroup, capabilities, system call filter and user.
    The exit status is the command's, or 128+N if signal N ended it, 127 if the command wasn't found, 126 if it can't be
    executed, 125 if minibox failed.""",
    epilog="""\b
Examples:
  minibox exec web ls -l /srv
  minibox exec -it web sh
  minibox exec -u www-data -e LANG=C -w /srv web ./report""",
)
