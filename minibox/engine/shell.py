"""`minibox shell IMAGE`: a run of the best shell that the image has."""

from __future__ import annotations

from minibox.errors import UsageError
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.options import RunOptions

# A shell counts as there when it can run nothing: one that is found may still lack its loader or its libraries.
_BEST_SHELL = (
    'for shell in bash zsh ash; do "$shell" -c : </dev/null >/dev/null 2>&1 && exec "$shell"; done; exec /bin/sh'
)


def best_shell_command() -> tuple[str, ...]:
    """A command that becomes bash, zsh or ash, whichever the image has first, else stays /bin/sh."""
    return ("/bin/sh", "-c", _BEST_SHELL)


def shell_options(options: RunOptions, *, terminal: bool) -> RunOptions:
    """``options`` as `minibox shell` means them: interactive, removed at the end, the image's entrypoint aside.

    ``terminal``: whether who calls sits at one; without it the shell reads commands from stdin.

    Raises:
        UsageError: the options hold a command.
    """
    if options.command:
        raise UsageError(
            f"shell takes no command, got {' '.join(options.command)!r}",
            hint=f"to run a command: minibox run --rm {options.image} {' '.join(options.command)}",
        )
    changed: RunOptions = replace(  # type: ignore[no-untyped-call,unused-ignore]
        options,
        command=best_shell_command(),
        entrypoint="",
        interactive=True,
        tty=options.tty or terminal,
        rm=True,
    )
    return changed
