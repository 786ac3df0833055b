"""`minibox shell`: open the best shell of an image, in a new container or an existing one."""

from __future__ import annotations

from minibox.errors import ContainerNotFound, ImageNotFound, InvalidReference, UsageError, suppress
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.base.home import Home
    from minibox.engine.container.run import Note
    from minibox.engine.spec.options import RunOptions

# Try each shell with an empty command: it may exist, but lack its loader or libraries.
_BEST_SHELL = (
    'for shell in bash zsh ash; do "$shell" -c : </dev/null >/dev/null 2>&1 && exec "$shell"; done; exec /bin/sh'
)


def best_shell_command() -> tuple[str, ...]:
    """A command that starts bash, zsh or ash, the first that the image has, else /bin/sh."""
    return ("/bin/sh", "-c", _BEST_SHELL)


def shell_options(options: RunOptions, *, terminal: bool) -> RunOptions:
    """The options for `minibox shell`: interactive, removed at the end, without the image's entrypoint.

    Args:
        terminal: the user has a terminal. Without one the shell reads commands from standard input.

    Raises:
        UsageError: the options have a command.
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
    """The id of the container that ``image`` in the options names; "" if it names an image, or no container.

    Raises:
        UsageError: it is a container, but there are options for a new one.
    """
    from minibox.engine.spec.options import given
    from minibox.engine.state import containers
    from minibox.image.store import ImageStore

    with suppress(ImageNotFound, InvalidReference):
        ImageStore(root).resolve(options.image)
        return ""
    try:
        container_id = containers.find_id(root, options.image)
    except ContainerNotFound:
        return ""
    if more := given(options).keys() - {"image", "interactive", "tty", "rm"}:
        option = min(more).removesuffix("_s").removesuffix("_bytes").replace("_", "-")
        raise UsageError(f"--{option} can't be changed: container {options.image} exists already")
    return container_id


def shell_in(home: Home, container_id: str, *, terminal: bool, on_note: Note | None = None) -> int:
    """Open the best shell in a container. If it has ended, run the shell on its files.

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
            timeout_s=0, restart=None,
        )  # fmt: skip
        return made

    status = run_in_ended(home, container_id, changed, on_note=on_note)
    if status is None:
        options = ExecOptions(best_shell_command(), interactive=True, tty=terminal)
        status = exec_(home, container_id, options)
    return status
