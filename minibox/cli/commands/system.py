"""Commands about minibox and this machine: explain, doctor, version, completion."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from minibox.base.lines import lines_of
from minibox.cli.completion import SHELLS
from minibox.cli.format.table import format_json, printable
from minibox.cli.parameters import named_settings, settings_of
from minibox.errors import UsageError

STATUS_COLOURS = {"pass": "green", "degraded": "yellow", "missing": "red"}


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  minibox explain run --rm base echo hello
  minibox explain --json run -m 64m base true
  minibox explain --html start.html run --rm base true
  minibox explain exec web sh
  minibox explain stop web
  minibox explain --shell run --userns host --network none base sh > start.sh""",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@click.option("--html", metavar="FILE", type=click.Path(), help="Write a page to FILE, with steps to open")
@click.option("--shell", "as_script", is_flag=True, help="Print a shell script that does the same when root runs it")
@click.argument("words", metavar="run|create|exec|stop [OPTIONS] ...", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def explain(ctx: click.Context, words: tuple[str, ...], as_json: bool, as_script: bool, html: str | None) -> None:
    """Show the steps of a start, an exec or a stop and the reason for each, without running it.

    Give a whole `run`, `shell`, `create`, `exec` or `stop` command. Each step is shown with its arguments, its reason,
    its manual page, and the equivalent shell command. For `create` these are the steps of its later start.
    """
    from minibox.cli.format.plan import format_plan, listing_width

    given = [name for name, is_given in (("--json", as_json), ("--shell", as_script), ("--html", html)) if is_given]
    if len(given) > 1:
        raise UsageError(f"{given[0]} can't be given with {given[1]}")
    name = words[0] if words else ""
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
        click.echo(format_json(rows) if as_json else format_plan(rows, listing_width()))


def _explain_run(ctx: click.Context, name: str, words: tuple[str, ...], as_script: bool) -> list[dict[str, Any]] | None:
    """The rows; None when the script was printed."""
    from minibox.cli.commands import lifecycle, run
    from minibox.engine.report import explain as engine

    settings = settings_of(ctx)
    command = {"run": run.run, "shell": run.shell, "create": lifecycle.create}[name]
    with command.make_context(name, list(words), parent=ctx) as run_context:
        options = run.options_of(run_context.params)
    if name == "shell":
        from minibox.engine.container.shell import shell_options

        options = shell_options(options, terminal=sys.stdin is not None and sys.stdin.isatty())
    if as_script:
        click.echo(engine.script(settings.home, options, storage_driver=settings.storage_driver).rstrip("\n"))
        return None
    return engine.explain(settings.home, options, storage_driver=settings.storage_driver)


def _explain_exec(ctx: click.Context, words: tuple[str, ...]) -> list[dict[str, Any]]:
    from minibox.cli.commands import running_containers
    from minibox.engine.report.explain import explain_exec

    with running_containers.exec_.make_context("exec", list(words), parent=ctx) as context:
        name, options = running_containers.options_of(context.params)
    return explain_exec(name, options, root=settings_of(ctx).home.root)


def _explain_stop(ctx: click.Context, words: tuple[str, ...]) -> list[dict[str, Any]]:
    from minibox.cli.commands import lifecycle
    from minibox.engine.report.explain import explain_stop
    from minibox.linux.signals import signal_number

    settings = settings_of(ctx)
    with lifecycle.stop.make_context("stop", list(words), parent=ctx) as context:
        given = context.params
    names = given["containers"]
    if len(names) != 1:
        raise UsageError("explain the stop of one container at a time")
    number = signal_number(given["signal"]) if given["signal"] else 0
    return explain_stop(settings.home, names[0], timeout_s=given["timeout"], signal_number=number)


@click.command(epilog="\b\nExample:\n  minibox doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> int:
    """Check what this machine supports: pass, degraded or missing, with the consequence and the exact fix.

    The exit status is 1 if something is missing that every container needs.
    """
    from minibox.engine.report.doctor import diagnose

    settings = named_settings(ctx)
    checks = diagnose(settings.home)
    if as_json:
        fields = ("name", "status", "found", "consequence", "fix")
        click.echo(format_json([{field: getattr(check, field) for field in fields} for check in checks]))
    else:
        click.echo(format_checks(checks))
    return int(any(check.status == "missing" for check in checks))


def format_checks(checks: Sequence[Any]) -> str:
    """Format the checks of `engine.report.doctor`, one a line, with consequence and fix below those that don't pass."""
    from minibox.cli.format.plan import listing_width, wrap

    width = listing_width()
    names = max((len(check.name) for check in checks), default=0)
    statuses = max(map(len, STATUS_COLOURS))
    margin = " " * (statuses + names + 4)
    lines: list[str] = []
    for check in checks:
        status = click.style(check.status.ljust(statuses), fg=STATUS_COLOURS.get(check.status))
        first, *more = wrap(printable(check.found or "-"), margin, margin, width) or [margin]
        lines += [f"{status}  {check.name.ljust(names)}  {first[len(margin) :]}", *more]
        if check.status != "pass" and check.consequence:
            lines += wrap(printable(check.consequence), margin, margin, width)
        if check.status != "pass" and check.fix:
            lines += [f"{margin}fix: {printable(line)}" for line in lines_of(check.fix)]  # not wrapped, to copy it
    counts = [f"{sum(check.status == status for check in checks)} {status}" for status in STATUS_COLOURS]
    return "\n".join([*lines, "", ", ".join(counts)])


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@click.pass_context
def version(ctx: click.Context, as_json: bool) -> None:
    """Show the versions of minibox, Python and the kernel, and the state directories."""
    import os
    import platform

    from minibox.engine.host.version import version_text

    settings = named_settings(ctx)
    uname = os.uname()
    facts = {
        "minibox": version_text(),
        "python": platform.python_version(),
        "kernel": f"{uname.sysname} {uname.release}",
        "machine": uname.machine,
        "root": settings.home.root,
        "runroot": settings.home.runroot,
    }
    if as_json:
        click.echo(format_json(facts))
        return
    for name, value in facts.items():
        click.echo(f"{name:8} {value}")


@click.command(
    epilog="""\b
Examples:
  bash: add this line to ~/.bashrc
        eval "$(minibox completion bash)"
  zsh:  add this line to ~/.zshrc, below compinit
        eval "$(minibox completion zsh)"
  fish: run this once
        minibox completion fish > ~/.config/fish/completions/minibox.fish""",
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print a script with which your shell completes minibox's commands, options, values and images."""
    from minibox.cli.completion import complete

    return complete(click.get_current_context().find_root().command, f"{shell}_source")
