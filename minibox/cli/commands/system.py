"""Commands about minibox and this machine: doctor, version, completion."""

from __future__ import annotations

from minibox.base.json_text import dumps
from minibox.base.lines import lines_of
from minibox.cli.declare import argument, command, option
from minibox.cli.format.table import format_json, printable
from minibox.cli.messages import echo
from minibox.cli.parameters import named_settings
from minibox.cli.settings import SHELLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minibox.cli.declare import Context

STATUS_COLOURS = {"pass": "green", "degraded": "yellow", "missing": "red"}


@command(epilog="\b\nExample:\n  minibox doctor")
@option("--json", "as_json", is_flag=True, help="Print JSON")
def doctor(ctx: Context, as_json: bool) -> int:
    """Check what this machine supports: pass, degraded or missing, with the consequence and the exact fix.

    The exit status is 1 if something is missing that every container needs.
    """
    from minibox.engine.report.doctor import diagnose

    settings = named_settings(ctx)
    checks = diagnose(settings.home)
    if as_json:
        fields = ("name", "status", "found", "consequence", "fix")
        echo(format_json([{field: getattr(check, field) for field in fields} for check in checks]))
    else:
        echo(format_checks(checks))
    return int(any(check.status == "missing" for check in checks))


def format_checks(checks: Sequence[Any]) -> str:
    """Format the checks of `engine.report.doctor`, one a line, with consequence and fix below those that don't pass."""
    from click import style

    from minibox.cli.format.plan import listing_width, wrap

    width = listing_width()
    names = max((len(check.name) for check in checks), default=0)
    statuses = max(map(len, STATUS_COLOURS))
    margin = " " * (statuses + names + 4)
    lines: list[str] = []
    for check in checks:
        status = style(check.status.ljust(statuses), fg=STATUS_COLOURS.get(check.status))
        first, *more = wrap(printable(check.found or "-"), margin, margin, width) or [margin]
        lines += [f"{status}  {check.name.ljust(names)}  {first[len(margin) :]}", *more]
        if check.status != "pass" and check.consequence:
            lines += wrap(printable(check.consequence), margin, margin, width)
        if check.status != "pass" and check.fix:
            lines += [f"{margin}fix: {printable(line)}" for line in lines_of(check.fix)]  # not wrapped, to copy it
    counts = [f"{sum(check.status == status for check in checks)} {status}" for status in STATUS_COLOURS]
    return "\n".join([*lines, "", ", ".join(counts)])


@command()
@option("--json", "as_json", is_flag=True, help="Print JSON")
@option("-f", "--format", "form", metavar="FORMAT", default="", help="json, or a template: {{.Server.Version}}")
def version(ctx: Context, as_json: bool, form: str) -> None:
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
        echo(sendable(dumps(found, "") if form == "json" else Template(form).render(found)))
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
        echo(format_json(facts))
        return
    for name, value in facts.items():
        echo(f"{name:8} {value}")


@command(
    epilog="""\b
Examples:
  bash: add this line to ~/.bashrc
        eval "$(minibox completion bash)"
  zsh:  add this line to ~/.zshrc, below compinit
        eval "$(minibox completion zsh)"
  fish: run this once
        minibox completion fish > ~/.config/fish/completions/minibox.fish""",
    needs_click=True,
)
@argument("shell", choices=SHELLS)
def completion(ctx: Context, shell: str) -> int:
    """Print a script with which your shell completes minibox's commands, options, values and images."""
    from minibox.cli.completion import complete

    return complete(ctx.find_root().command, f"{shell}_source")
