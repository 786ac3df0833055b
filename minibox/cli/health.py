"""minibox healthcheck run."""

from __future__ import annotations

import click

from minibox.cli.application import complete_container, settings_of


@click.command(epilog="\b\nExample:\n  minibox healthcheck run web && echo it is well")
@click.argument("container", shell_complete=complete_container)
@click.pass_context
def run(ctx: click.Context, container: str) -> int:
    """Check the health of a container now, as its health check says, and count the result.

    The exit status is 0 when the check did well, 1 when it didn't, 125 when there is none or nothing to check.
    """
    from minibox.engine.health import run_check

    settings = settings_of(ctx)
    if run_check(container, root=settings.root, runroot=settings.runroot):
        return 0
    click.echo("unhealthy")
    return 1
