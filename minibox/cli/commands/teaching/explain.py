"""The command explain."""

from __future__ import annotations

import sys

from minibox.cli.declare import argument, command, option
from minibox.cli.format.table import format_json
from minibox.cli.messages import echo
from minibox.cli.parameters import settings_of
from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import click

    from minibox.engine.spec.options import RunOptions


@command(
    interspersed=False,
    needs_click=True,
    epilog="""\b
Examples:
  minibox explain run --rm base echo hello
  minibox explain --json run -m 64m base true
  minibox explain --html start.html run --rm base true
  minibox explain exec web sh
  minibox explain stop web
  minibox explain --shell run --userns host --network none base sh > start.sh
  minibox explain --step run --rm base sh
  minibox explain --without seccomp run base
  minibox explain --without all run -m 64m --pids-limit 64 base""",
)
@option("--json", "as_json", is_flag=True, help="Print JSON")
@option("--html", metavar="FILE", kind="path", help="Write a page to FILE, with steps to open")
@option("--shell", "as_script", is_flag=True, help="Print a shell script that does the same when root runs it")
@option("--step", is_flag=True, help="Start it, and stop before each step, to look inside")
@option(
    "--without",
    metavar="PROTECTION|all",
    multiple=True,
    help="Leave a protection out, and show which attacks get through then; may be repeated",
)
@argument("words", metavar="run|create|exec|stop [OPTIONS] ...", nargs=-1)
def explain(
    ctx: click.Context,
    words: tuple[str, ...],
    as_json: bool,
    as_script: bool,
    html: str | None,
    step: bool,
    without: tuple[str, ...],
) -> int:
    """Show the steps of a start, an exec or a stop and the reason for each, without running it.

    Give a whole `run`, `shell`, `create`, `exec` or `stop` command. Each step is shown with its arguments, its reason,
    its manual page, and the equivalent shell command. For `create` these are the steps of its later start.

    With --step it is started, and stops before each step: you see what the last one changed, can open a shell where the
    container's process is, go on, or end it. The commands come from standard input; help shows them.

    With --without, containers with the options of a `run` are started, but not its command: they lack a protection, and
    attackers in them try to reach files, processes and a neighbour made for it. See docs/security.md.
    """
    from minibox.cli.format.plan import format_plan, listing_width

    ways = (
        ("--json", as_json and (step or not without)),
        ("--shell", as_script),
        ("--html", html),
        ("--step", step),
        ("--without", without),
    )
    given = [name for name, is_given in ways if is_given]
    if len(given) > 1:
        raise UsageError(f"{given[0]} can't be given with {given[1]}")
    name = words[0] if words else ""
    if step:
        return _step(ctx, words)
    if without:
        _without(ctx, words, without, as_json)
        return 0
    if as_script and name in ("exec", "stop"):
        raise UsageError(f"there is no shell script of {name!r}", hint="leave out --shell: each step has its command")
    if name in ("run", "shell", "create"):
        rows = _explain_run(ctx, name, words[1:], as_script)
    elif name in ("exec", "stop"):
        rows = _explain_exec(ctx, words[1:]) if name == "exec" else _explain_stop(ctx, words[1:])
    else:
        what = f"can't explain {name!r}" if words else "nothing to explain"
        raise UsageError(what, hint="give a run command: minibox explain run base true")
    if rows is not None and html:
        from minibox.cli.format.page import page
        from minibox.cli.pictures import write_picture

        write_picture(html, page(rows, f"The steps of minibox {' '.join(words)}"))
    elif rows is not None:
        echo(format_json(rows) if as_json else format_plan(rows, listing_width()))
    return 0


def _explain_run(ctx: click.Context, name: str, words: tuple[str, ...], as_script: bool) -> list[dict[str, Any]] | None:
    """The rows; None when the script was printed."""
    from minibox.engine.report import explain as engine

    settings = settings_of(ctx)
    options = _options(ctx, name, words)
    if name == "shell":
        from minibox.engine.container.shell import shell_options

        options = shell_options(options, terminal=sys.stdin is not None and sys.stdin.isatty())
    if as_script:
        echo(engine.script(settings.home, options, storage_driver=settings.storage_driver).rstrip("\n"))
        return None
    return engine.explain(settings.home, options, storage_driver=settings.storage_driver)


def _options(ctx: click.Context, name: str, words: tuple[str, ...]) -> RunOptions:
    from minibox.cli.commands import run

    command = {"run": run.run, "shell": run.shell, "create": run.create}[name]
    with command.make_context(name, list(words), parent=ctx) as context:
        return run.options_of(context.params)


def _step(ctx: click.Context, words: tuple[str, ...]) -> int:
    from minibox.cli.commands.teaching.step import Prompt
    from minibox.cli.foreground import pull
    from minibox.cli.messages import note
    from minibox.engine.walkthrough.start import Quit, run_step_by_step

    if words[:1] != ("run",):
        raise UsageError("--step needs a run command", hint="minibox explain --step run base true")
    settings = settings_of(ctx).claimed()
    prompt = Prompt()
    try:
        return run_step_by_step(
            settings.home,
            _options(ctx, "run", words[1:]),
            prompt.on_plan,
            prompt.on_stop,
            storage_driver=settings.storage_driver,
            on_note=note,
            pull=lambda name, platform: pull(settings, name, platform),
        )
    except Quit as quit_:
        note(f"{quit_}; nothing is left of it")
        return 0


def _without(ctx: click.Context, words: tuple[str, ...], names: tuple[str, ...], as_json: bool) -> None:
    from minibox.cli.format.attacks import as_rows, format_table
    from minibox.cli.format.plan import listing_width
    from minibox.lab.attacks.table import without

    if words[:1] != ("run",):
        raise UsageError("--without needs a run command", hint=f"minibox explain --without {names[0]} run base")
    settings = settings_of(ctx).claimed()
    options = _options(ctx, "run", words[1:])
    shown = sys.stderr is not None and sys.stderr.isatty()

    def on_try(count: int) -> None:
        if shown:
            echo(f"\r{count} containers tried", err=True, nl=False)

    table = without(settings.home, options, settings.storage_driver, names, on_try)
    if shown:
        echo("\r\x1b[K", err=True, nl=False)
    echo(format_json(as_rows(table)) if as_json else format_table(table, "all" in names, listing_width()))


def _explain_exec(ctx: click.Context, words: tuple[str, ...]) -> list[dict[str, Any]]:
    from minibox.cli.commands import run
    from minibox.engine.report.explain import explain_exec

    with run.exec_.make_context("exec", list(words), parent=ctx) as context:
        name, options = run.exec_options_of(context.params)
    return explain_exec(name, options, root=settings_of(ctx).home.root)


def _explain_stop(ctx: click.Context, words: tuple[str, ...]) -> list[dict[str, Any]]:
    from minibox.cli.clicked import clicked
    from minibox.cli.commands import lifecycle
    from minibox.engine.report.explain import explain_stop
    from minibox.linux.signals import signal_number

    settings = settings_of(ctx)
    with clicked(lifecycle.stop).make_context("stop", list(words), parent=ctx) as context:
        given = context.params
    names = given["containers"]
    if len(names) != 1:
        raise UsageError("explain the stop of one container at a time")
    number = signal_number(given["signal"]) if given["signal"] else 0
    return explain_stop(settings.home, names[0], timeout_s=given["timeout"], signal_number=number)
