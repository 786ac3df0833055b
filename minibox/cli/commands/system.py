"""Commands about minibox and this machine: doctor, version, completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from minibox.base.json_text import dumps
from minibox.base.lines import lines_of
from minibox.cli.completion import SHELLS
from minibox.cli.format.table import format_json, printable
from minibox.cli.parameters import named_settings

STATUS_COLOURS = {"pass": "green", "degraded": "yellow", "missing": "red"}


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
@click.option("-f", "--format", "form", metavar="FORMAT", default="", help="json, or a template: {{.Server.Version}}")
@click.pass_context
def version(ctx: click.Context, as_json: bool, form: str) -> None:
    """Show the versions of minibox, Python and the kernel, and the state directories.

    --format has Docker's members; client and server are the same here.
    """
    import os
    import platform

    from minibox.engine.host.version import version_document, version_text

    if form:
        from minibox.cli.format.format import sendable
        from minibox.cli.format.template import Template

        found = version_document()
        click.echo(sendable(dumps(found, "") if form == "json" else Template(form).render(found)))
        return

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
