"""The command update."""

from __future__ import annotations

from typing import Any

import click

from minibox.cli.commands.run import Value, spelling
from minibox.cli.for_each import for_each
from minibox.cli.parameters import complete_container, settings_of
from minibox.cli.run_options import OPTIONS, Option
from minibox.engine.container.update import CHANGEABLE
from minibox.engine.spec.options import typed
from minibox.errors import UsageError
from minibox.record import replace

# Here 0 isn't the same as leaving an option out: it removes a limit.
_OPTIONS: list[Option] = [replace(option, zero_unsets=False) for option in OPTIONS if option.field in CHANGEABLE]


class UpdateCommand(click.Command):
    """Shows its options like the help of `run`; they come from the same table."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(spelling(option), option.help) for option in _OPTIONS]
        with formatter.section("Options"):
            formatter.write_dl([*rows, ("    --help", "Show this message and exit")])


def _update(containers: tuple[str, ...], **given: Any) -> int:
    from minibox.engine.container.update import update as apply

    settings = settings_of(click.get_current_context())
    changes = typed({field: value for field, value in given.items() if value is not None})
    if not changes:
        raise UsageError("nothing to change", "give a limit such as --memory 512m, or --restart always")

    def act(name: str) -> None:
        apply(settings.home, name, changes)

    return for_each(containers, act)


update = UpdateCommand(
    "update",
    callback=_update,
    params=[
        *(click.Option([each.field, *each.names], type=Value(each), help=each.help) for each in _OPTIONS),
        click.Argument(
            ["containers"], metavar="CONTAINER...", nargs=-1, required=True, shell_complete=complete_container
        ),
    ],
    help="""Change the limits and the restart policy of containers, now and for later starts.

    0 removes a limit. Other limits stay as they are. If one limit can't be set, none is changed.""",
    epilog="""\b
Examples:
  minibox update --memory 512m web
  minibox update --cpus 1.5 --pids-limit 200 web db
  minibox update --restart unless-stopped web""",
)
