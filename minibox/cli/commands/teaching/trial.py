"""The commands try and tried."""

from __future__ import annotations

import os
import sys

import click

from minibox.cli.changes import show_changes
from minibox.cli.commands.run import RunCommand, table_parameters, values_of
from minibox.cli.messages import note, printable
from minibox.cli.parameters import settings_of
from minibox.cli.run_options import OPTIONS, Option, make_options
from minibox.engine.spec.options import RunOptions
from minibox.errors import MiniboxError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from click.shell_completion import CompletionItem

    from minibox.base.home import Home
    from minibox.engine.trial.kept import Trial

_CHANGES, _COMMAND = "Its changes", "The command"
#: Options of `minibox run` that make sense on the host's own files.
_OF_RUN = (
    "env", "workdir", "timeout_s", "volume", "device", "network", "memory_bytes", "cpus", "pids_limit", "ulimit",
    "cap_add", "cap_drop",
)  # fmt: skip
_OWN = (
    Option("apply", ("--apply",), "flag", "", "Apply its changes to this host", _CHANGES),
    Option("keep", ("--keep",), "flag", "", "Keep its changes for minibox tried", _CHANGES),
    Option("discard", ("--discard",), "flag", "", "Forget its changes", _CHANGES),
    Option("force", ("--force",), "flag", "", "Apply over what changed meanwhile", _CHANGES),
    Option("privileged", ("--privileged",), "flag", "", "Also apply set-user-ID bits and devices", _CHANGES),
    Option("over", ("--over",), "text", "DIR", "Use DIR as its root, not /", _COMMAND, complete="file"),
)


class _Defaults(RunOptions):
    apply = keep = discard = force = False


class TryCommand(RunCommand):
    table = (*_OWN, *(option for option in OPTIONS if option.field in _OF_RUN))
    by_name = {name: option for option in table for name in option.names}


def _try(
    apply: bool, keep: bool, discard: bool, force: bool, privileged: bool, over: str | None, command: tuple[str, ...],
    **given: Any,
) -> int:  # fmt: skip
    from minibox.engine.trial.run import try_command

    if not command:
        raise UsageError("no command to try", "minibox try COMMAND [ARG]...")
    home = settings_of(click.get_current_context()).claimed().home
    terminal = os.isatty(0) and os.isatty(1)
    action = _chosen(apply=apply, keep=keep, discard=discard)
    if not action and not terminal:
        raise UsageError("without a terminal, say what becomes of the changes", "use --apply, --keep or --discard")
    options = make_options({**values_of(given), "tty": terminal}, ["", *command])

    def decide(trial: Trial) -> None:
        show_changes(trial, sys.stderr)
        _settle(home, trial, action or _ask(trial), force=force, privileged=privileged, asks=terminal)

    return try_command(home, options, over or "/", decide, note)


def _chosen(**flags: bool) -> str:
    chosen = [name for name, given in flags.items() if given]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    return chosen[0] if chosen else ""


def _ask(trial: Trial) -> str:
    """Ask what to do with the changes; a kept trial stays if the answer is to keep it."""
    if not trial.found:
        return "discard"
    while True:
        try:
            answer = click.prompt("apply, keep or discard?", default="keep", err=True)
        except click.Abort:
            return "keep"
        found = [word for word in ("apply", "keep", "discard") if answer and word.startswith(answer.strip().lower())]
        if len(found) == 1:
            return found[0]


def _settle(home: Home, trial: Trial, action: str, *, force: bool, privileged: bool, asks: bool) -> None:
    """Apply, keep or discard a trial's changes.

    They are kept while they are applied: what can't be applied, or is interrupted, can be tried again.
    """
    from minibox.engine.trial import kept

    is_new = not trial.name
    if is_new and (action == "discard" or not trial.found):
        return
    if is_new:
        trial = kept.keep(home.root, trial)
    if action == "keep":
        note(f"kept: minibox tried {trial.name} shows it, with --apply or --discard does so")
        return
    try:
        _apply(trial, force=force, privileged=privileged, asks=asks)
    except MiniboxError as error:
        error.hint = f"minibox tried {trial.name} has the changes" + (f"; {error.hint}" if error.hint else "")
        raise
    except BaseException:
        note(f"interrupted: minibox tried {trial.name} has the changes")
        raise
    kept.discard(home.root, trial.name)


def _apply(trial: Trial, *, force: bool, privileged: bool, asks: bool) -> None:
    from minibox.engine.trial.run import apply, find_conflicts

    found = [] if force else find_conflicts(trial)
    for conflict in found:
        note(f"{trial.tree.host_path(conflict.path)}: {conflict.why}, on the host")
    if found and not (asks and click.confirm(f"apply over {_count(found, 'path')} all the same?", err=True)):
        raise MiniboxError(
            f"apply over {_count(found, 'path')} that changed on the host meanwhile", "--force applies over them"
        )
    risky = [each for each in trial.found if each.privilege]
    if risky and not privileged and asks:
        for each in risky:
            note(f"{trial.tree.host_path(each.path)}: {each.privilege}")
        privileged = click.confirm(f"apply {_count(risky, 'path')} with these privileges?", err=True)
    done = apply(trial, privileged=privileged)
    for path, why in done.left_out:
        note(f"{trial.tree.host_path(path)}: {why}")
    if done.left_out and not privileged and risky and not asks:
        note("--privileged would have applied them as they are")


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}" + ("s" if len(things) != 1 else "")


try_ = TryCommand(
    "try",
    callback=_try,
    params=[
        *table_parameters(TryCommand.table, _Defaults),
        click.Argument(["command"], nargs=-1, type=click.UNPROCESSED, metavar="COMMAND [ARG]..."),
    ],
    context_settings={"allow_interspersed_args": False},
    help="""Run a command of this host without letting it change anything, then show what it would have changed.

    The command runs as you, in your directory, on overlays over the host's files. It has no network unless you give it
    one, and reaches no socket, FIFO or device of the host. At its end you see which files it added (A), changed (C) and
    deleted (D), and apply, keep or discard that.""",
    epilog="""\b
Examples:
  minibox try make install         on a terminal, you are asked at the end
  minibox try --keep ./install.sh  keep its changes for minibox tried
  minibox try --network bridge --discard apt-get install -y hello
  minibox try --over /srv/site --apply sh -c 'date > /index.html'""",
)


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from minibox.engine.trial import kept

    return [CompletionItem(name) for name in kept.names(settings_of(ctx).home.root) if name.startswith(incomplete)]


@click.command(
    epilog="""\b
Examples:
  minibox tried                        list what is kept
  minibox tried 1f0c9a22b7d1           show its changes
  minibox tried 1f0c9a22b7d1 --apply"""
)
@click.option("--apply", is_flag=True, help="Apply its changes to this host")
@click.option("--discard", is_flag=True, help="Forget its changes")
@click.option("--force", is_flag=True, help="Apply over what changed meanwhile")
@click.option("--privileged", is_flag=True, help="Also apply set-user-ID bits, file capabilities and devices")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@click.argument("name", required=False, shell_complete=_complete)
@click.pass_context
def tried(
    ctx: click.Context, name: str | None, apply: bool, discard: bool, force: bool, privileged: bool, as_json: bool
) -> None:
    """Show, apply or discard what `minibox try` kept. Without NAME, list it."""
    from minibox.engine.trial import kept

    home, action = settings_of(ctx).home, _chosen(apply=apply, discard=discard)
    if name is None:
        if action:
            raise UsageError(f"--{action} needs the name of a trial", "minibox tried lists them")
        trials = kept.all_kept(home.root)
        if as_json:
            _print_json([_row(each) for each in trials])
            return
        for trial in trials:
            command = printable(" ".join(trial.command))
            click.echo(f"{trial.name}  {_count(trial.found, 'change')}, status {trial.status}: {command}")
        return
    if action == "discard":
        kept.discard(home.root, name)
        return
    trial = kept.read(home.root, name)
    if action:
        _settle(home, trial, action, force=force, privileged=privileged, asks=os.isatty(0) and os.isatty(2))
    elif as_json:
        _print_json(_row(trial))
    else:
        show_changes(trial, sys.stdout)


def _row(trial: Trial) -> dict[str, Any]:
    from minibox.engine.trial.changes import as_json

    return {
        "Name": trial.name,
        "Command": list(trial.command),
        "Over": trial.tree.over,
        "Status": trial.status,
        "Changes": [as_json(each) for each in trial.found],
    }


def _print_json(value: object) -> None:
    from minibox.cli.format.table import format_json

    click.echo(format_json(value))
