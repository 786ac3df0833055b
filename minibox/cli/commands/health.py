"""The command healthcheck run."""

from __future__ import annotations

from minibox.cli.declare import argument, command
from minibox.cli.messages import echo
from minibox.cli.parameters import complete_container, settings_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.cli.declare import Context


@command(epilog="\b\nExample:\n  minibox healthcheck run web && echo healthy")
@argument("container", shell_complete=complete_container)
def run(ctx: Context, container: str) -> int:
    """Run the health check of a container now. The result counts for its health status.

    The exit status is 0 if the check succeeds, 1 if it fails, and 125 if the container has no health check, isn't
    running or is paused.
    """
    from minibox.engine.container.health import run_check

    settings = settings_of(ctx)
    if run_check(settings.home, container):
        return 0
    echo("unhealthy")
    return 1
