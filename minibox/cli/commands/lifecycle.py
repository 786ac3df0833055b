"""Commands for the life of containers: start, stop, restart, kill, pause, unpause, wait, rename, rm."""

from __future__ import annotations

from minibox.cli.declare import argument, command, option
from minibox.cli.for_each import for_each, for_each_name
from minibox.cli.parameters import complete_container, settings_of
from minibox.engine.process.detach_keys import DETACH_KEYS
from minibox.errors import ContainerNotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    import click

    from minibox.cli.declare import Context

    T = TypeVar("T")

containers_argument = argument(
    "containers", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=complete_container
)
detach_keys_option = option(
    "--detach-keys", metavar="KEYS", default=DETACH_KEYS, help=f"Keys that detach you  [{DETACH_KEYS}]"
)


def _stop_options(command: T) -> T:
    """Add the options for stopping: the signal, and how long to wait."""
    command = option("-s", "--signal", metavar="SIGNAL", default="", help="Send this signal to stop it")(command)
    return option(
        "-t",
        "--timeout",
        "--time",
        metavar="SECONDS",
        kind="int",
        least=-1,
        help="Wait this long, then kill it; -1: never",
    )(command)


@command(epilog="\b\nExamples:\n  minibox start web db\n  minibox start -ai shell")
@option("-a", "--attach", is_flag=True, help="Show its output, pass signals on, and exit with its status")
@option("-i", "--interactive", is_flag=True, help="Also connect stdin")
@detach_keys_option
@containers_argument
def start(ctx: Context, containers: tuple[str, ...], attach: bool, interactive: bool, detach_keys: str) -> int:
    """Start created or stopped containers. A running container is left alone."""
    from minibox.cli.messages import note
    from minibox.engine.container import start as container

    settings = settings_of(ctx)
    if attach or interactive:
        if len(containers) > 1:
            raise UsageError("you cannot start and attach multiple containers at once", "omit -a and -i")
        return container.start_attached(
            settings.home, containers[0], stdin=interactive, detach_keys=detach_keys, on_note=note
        )

    return for_each_name(containers, lambda name: container.start(settings.home, name, on_note=note))


@command(epilog="\b\nExamples:\n  minibox stop web\n  minibox stop -t 0 web db")
@_stop_options
@containers_argument
def stop(ctx: Context, containers: tuple[str, ...], timeout: int | None, signal: str) -> int:
    """Stop containers with their stop signal. Those that don't end within 10 seconds are killed with SIGKILL."""
    from minibox.engine.container.lifecycle import stop as end
    from minibox.linux.signals import signal_number

    home, number = settings_of(ctx).home, signal_number(signal) if signal else 0

    def act(name: str) -> None:
        end(home, name, timeout_s=timeout, signal_number=number)

    return for_each_name(containers, act, at_once=True)


@command(epilog="\b\nExample:\n  minibox restart -t 2 web")
@_stop_options
@containers_argument
def restart(ctx: Context, containers: tuple[str, ...], timeout: int | None, signal: str) -> int:
    """Stop containers like `minibox stop`, and start them again."""
    from minibox.cli.messages import note
    from minibox.engine.container.start import restart as again
    from minibox.linux.signals import signal_number

    home, number = settings_of(ctx).home, signal_number(signal) if signal else 0

    def act(name: str) -> None:
        again(home, name, timeout_s=timeout, signal_number=number, on_note=note)

    return for_each(containers, act, at_once=True)


@command(epilog="\b\nExamples:\n  minibox kill web\n  minibox kill -s HUP web")
@option("-s", "--signal", metavar="SIGNAL", default="KILL", help="Signal to send  [KILL]")
@containers_argument
def kill(ctx: Context, containers: tuple[str, ...], signal: str) -> int:
    """Send a signal to the main process of containers."""
    from minibox.engine.container.lifecycle import kill as send
    from minibox.linux.signals import signal_number

    home, number = settings_of(ctx).home, signal_number(signal)
    return for_each_name(containers, lambda name: send(home, name, signal_number=number))


@command(epilog="\b\nExample:\n  minibox pause web")
@containers_argument
def pause(ctx: Context, containers: tuple[str, ...]) -> int:
    """Pause all processes of containers, until `minibox unpause`."""
    from minibox.engine.container.lifecycle import pause as freeze

    home = settings_of(ctx).home
    return for_each_name(containers, lambda name: freeze(home, name))


@command(epilog="\b\nExample:\n  minibox unpause web")
@containers_argument
def unpause(ctx: Context, containers: tuple[str, ...]) -> int:
    """Resume the processes of paused containers."""
    from minibox.engine.container.lifecycle import unpause as thaw

    home = settings_of(ctx).home
    return for_each_name(containers, lambda name: thaw(home, name))


@command(epilog="\b\nExamples:\n  minibox wait web\n  minibox wait --condition healthy --timeout 30s web && echo ready")
@option(
    "--condition",
    metavar="CONDITION",
    default="not-running",
    help="running, healthy, unhealthy, paused, exited, next-exit, removed ...  [not-running]",
)
@option("--timeout", metavar="TIME", default="", help="Give up after this time, and exit with 124: 5s, 1m30s")
@containers_argument
def wait(ctx: Context, containers: tuple[str, ...], condition: str, timeout: str) -> int:
    """Wait until containers have ended, and print the exit status of each; for other conditions, print -1."""
    from minibox.cli.run_options import BY_NAME, convert
    from minibox.engine.container.conditions import wait_for

    settings = settings_of(ctx)
    try:
        timeout_s = convert(BY_NAME["--timeout"], timeout) if timeout else None
    except ValueError as error:
        raise UsageError(f"invalid value {timeout!r} for --timeout: {error}", "write it as 5s or 1m30s") from None

    def act(name: str) -> object:
        return wait_for(settings.home, name, condition=condition, timeout_s=timeout_s)

    return for_each(containers, act, at_once=True)


@command(epilog="\b\nExample:\n  minibox rename web web-old")
@argument("container", shell_complete=complete_container)
@argument("new_name")
def rename(ctx: Context, container: str, new_name: str) -> None:
    """Rename a container."""
    from minibox.engine.container.lifecycle import rename as give_name

    give_name(settings_of(ctx).home, container, new_name)


def _refuse_link(ctx: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        raise UsageError(
            "there are no links", "containers of a network reach each other by name; disconnect takes one out"
        )


@command(epilog="\b\nExamples:\n  minibox rm web 4f2d\n  minibox rm -f --all")
@option("-f", "--force", is_flag=True, help="Kill running containers first; ignore containers that don't exist")
@option("-v", "--volumes", is_flag=True, help="No effect: anonymous volumes are always removed")
@option("-a", "--all", "every", is_flag=True, help="Remove all containers")
@option("-l", "--link", is_flag=True, hidden=True, expose_value=False, callback=_refuse_link)
@argument("containers", metavar="CONTAINER...", nargs=-1, shell_complete=complete_container)
def rm(ctx: Context, containers: tuple[str, ...], force: bool, volumes: bool, every: bool) -> int:
    """Remove containers with their files. Name them, or give the beginning of their ids."""
    from minibox.cli.messages import note
    from minibox.engine.container.removal import all_ids, kill_ahead, remove

    settings = settings_of(ctx)
    if every == bool(containers):
        raise UsageError("name the containers, or use --all" if not every else "names can't be given with --all")

    names = all_ids(settings.home.root) if every else containers
    killed = kill_ahead(names, root=settings.home.root) if force else set()

    def act(name: str) -> str:
        try:
            remove(settings.home, name, force=force, killed=killed)
        except ContainerNotFound as error:
            if not force:
                raise
            if not every:
                note(str(error))
            return ""
        return name

    return for_each(names, act)
