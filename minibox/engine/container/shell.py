"""`minibox shell`: the best shell that an image has, in a new container or in one that is there."""

from __future__ import annotations

from minibox.errors import ContainerNotFound, ImageNotFound, InvalidReference, UsageError
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.container.launch import Note
    from minibox.engine.spec.options import RunOptions

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
    changed: RunOptions = replace(
        options,
        command=best_shell_command(),
        entrypoint="",
        interactive=True,
        tty=options.tty or terminal,
        rm=True,
    )
    return changed


def container_of(options: RunOptions, root: str) -> str:
    """The id of the container that ``image`` of the options means; "" when there is an image of that name, or no container.

    Raises:
        UsageError: it is a container, which has its options already.
    """
    from minibox.engine.spec.options import given
    from minibox.engine.state import containers
    from minibox.image.store import ImageStore

    try:
        ImageStore(root).resolve(options.image)
        return ""
    except (ImageNotFound, InvalidReference):
        pass
    try:
        container_id = containers.find_id(root, options.image)
    except ContainerNotFound:
        return ""
    if more := given(options).keys() - {"image", "interactive", "tty", "rm"}:
        option = min(more).removesuffix("_s").removesuffix("_bytes").replace("_", "-")
        raise UsageError(f"--{option}: container {options.image} has its options already")
    return container_id


def shell_in(container_id: str, *, root: str, runroot: str, terminal: bool, on_note: Note | None = None) -> int:
    """Open the best shell of a container: beside what runs in it, or else on the files that it has left.

    Returns:
        The shell's exit status.

    Raises:
        MiniboxError: it can't be started.
    """
    from minibox.engine.container.exec import ExecOptions, exec_
    from minibox.engine.container.start import run_in_ended

    def changed(before: RunOptions) -> RunOptions:
        made: RunOptions = replace(
            before, command=best_shell_command(), entrypoint="", interactive=True, tty=terminal, idle=False, detach=False,
            timeout_s=0, restart="",
        )  # fmt: skip
        return made

    status = run_in_ended(container_id, changed, root=root, runroot=runroot, on_note=on_note)
    if status is None:
        options = ExecOptions(best_shell_command(), interactive=True, tty=terminal)
        status = exec_(container_id, options, root=root, runroot=runroot)
    return status
