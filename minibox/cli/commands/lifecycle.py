"""Commands for the life of containers: create, start, stop, restart, kill, pause, unpause, wait, rename, rm."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from click.decorators import FC

from minibox.cli.commands.run import RunCommand, options_of, run_parameters
from minibox.cli.for_each import for_each, for_each_name
from minibox.cli.parameters import complete_container, settings_of
from minibox.engine.process.detach_keys import DETACH_KEYS
from minibox.errors import ContainerNotFound, UsageError

containers_argument = click.argument(
    "containers", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=complete_container
)
detach_keys_option = click.option(
    "--detach-keys", metavar="KEYS", default=DETACH_KEYS, help=f"Keys that detach you  [{DETACH_KEYS}]"
)


def _stop_options(command: FC) -> FC:
    """Add the options for stopping: the signal, and how long to wait."""
    command = click.option("-s", "--signal", metavar="SIGNAL", default="", help="Send this signal to stop it")(command)
    return click.option(
        "-t",
        "--timeout",
        "--time",
        metavar="SECONDS",
        type=click.IntRange(min=-1),
        help="Wait this long, then kill it; -1: never",
    )(command)


def _create(**params: Any) -> None:
    from minibox.cli.foreground import pull
    from minibox.cli.messages import note
    from minibox.engine.container.start import create as make

    settings, options = settings_of(click.get_current_context()), options_of(params)
    click.echo(
        make(
            settings.home,
            options,
            storage_driver=settings.storage_driver,
            on_note=note,
            pull=partial(pull, settings, quiet=options.quiet),
        )
    )


create = RunCommand(
    "create",
    callback=_create,
    params=run_parameters(),
    context_settings={"allow_interspersed_args": False},
    help="""Create a container without starting it, and print its id. `minibox start` starts it.

    The options are those of `minibox run`.""",
    epilog="""\b
Example:
  minibox create --name web -v "$PWD:/srv" base httpd -f
  minibox start web""",
)


@click.command(epilog="\b\nExamples:\n  minibox start web db\n  minibox start -ai shell")
@click.option("-a", "--attach", is_flag=True, help="Show its output, pass signals on, and exit with its status")
@click.option("-i", "--interactive", is_flag=True, help="Also connect stdin")
@detach_keys_option
@containers_argument
@click.pass_context
def start(ctx: click.Context, containers: tuple[str, ...], attach: bool, interactive: bool, detach_keys: str) -> int:
    """Start created or stopped containers. A running container is left alone."""
    from minibox.cli.messages import note
    from minibox.engine.container import start as container

    settings = settings_of(ctx)
    begin = partial(container.start, settings.home, on_note=note)
    if attach or interactive:
        if len(containers) > 1:
            raise UsageError("you cannot start and attach multiple containers at once", "omit -a and -i")
        return container.start_attached(
            settings.home, containers[0], stdin=interactive, detach_keys=detach_keys, on_note=note
        )

    return for_each_name(containers, begin)


@click.command(epilog="\b\nExamples:\n  minibox stop web\n  minibox stop -t 0 web db")
@_stop_options
@containers_argument
@click.pass_context
def stop(ctx: click.Context, containers: tuple[str, ...], timeout: int | None, signal: str) -> int:
    """Stop containers with their stop signal. Those that don't end within 10 seconds are killed with SIGKILL."""
    from minibox.engine.container.lifecycle import stop as end
    from minibox.linux.signals import signal_number

    home, number = settings_of(ctx).home, signal_number(signal) if signal else 0
    return for_each_name(containers, partial(end, home, timeout_s=timeout, signal_number=number), at_once=True)


@click.command(epilog="\b\nExample:\n  minibox restart -t 2 web")
@_stop_options
@containers_argument
@click.pass_context
def restart(ctx: click.Context, containers: tuple[str, ...], timeout: int | None, signal: str) -> int:
    """Stop containers like `minibox stop`, and start them again."""
    from minibox.cli.messages import note
    from minibox.engine.container.start import restart as again
    from minibox.linux.signals import signal_number

    home, number = settings_of(ctx).home, signal_number(signal) if signal else 0
    act = partial(again, home, timeout_s=timeout, signal_number=number, on_note=note)
    return for_each(containers, act, at_once=True)


@click.command(epilog="\b\nExamples:\n  minibox kill web\n  minibox kill -s HUP web")
@click.option("-s", "--signal", metavar="SIGNAL", default="KILL", help="Signal to send  [KILL]")
@containers_argument
@click.pass_context
def kill(ctx: click.Context, containers: tuple[str, ...], signal: str) -> int:
    """Send a signal to the main process of containers."""
    from minibox.engine.container.lifecycle import kill as send
    from minibox.linux.signals import signal_number

    home, number = settings_of(ctx).home, signal_number(signal)
    return for_each_name(containers, partial(send, home, signal_number=number))


@click.command(epilog="\b\nExample:\n  minibox pause web")
@containers_argument
@click.pass_context
def pause(ctx: click.Context, containers: tuple[str, ...]) -> int:
    """Pause all processes of containers, until `minibox unpause`."""
    from minibox.engine.container.lifecycle import pause as freeze

    return for_each_name(containers, partial(freeze, settings_of(ctx).home))


@click.command(epilog="\b\nExample:\n  minibox unpause web")
@containers_argument
@click.pass_context
def unpause(ctx: click.Context, containers: tuple[str, ...]) -> int:
    """Resume the processes of paused containers."""
    from minibox.engine.container.lifecycle import unpause as thaw

    return for_each_name(containers, partial(thaw, settings_of(ctx).home))


@click.command(
    epilog="\b\nExamples:\n  minibox wait web\n  minibox wait --condition healthy --timeout 30s web && echo ready"
)
@click.option(
    "--condition",
    metavar="CONDITION",
    default="not-running",
    help="running, healthy, unhealthy, paused, exited, next-exit, removed ...  [not-running]",
)
@click.option("--timeout", metavar="TIME", default="", help="Give up after this time, and exit with 124: 5s, 1m30s")
@containers_argument
@click.pass_context
def wait(ctx: click.Context, containers: tuple[str, ...], condition: str, timeout: str) -> int:
    """Wait until containers have ended, and print the exit status of each; for other conditions, print -1."""
    from minibox.cli.run_options import BY_NAME, convert
    from minibox.engine.container.conditions import wait_for

    settings = settings_of(ctx)
    try:
        timeout_s = convert(BY_NAME["--timeout"], timeout) if timeout else None
    except ValueError as error:
        raise UsageError(f"invalid value {timeout!r} for --timeout: {error}", "write it as 5s or 1m30s") from None
    act = partial(wait_for, settings.home, condition=condition, timeout_s=timeout_s)
    return for_each(containers, act, at_once=True)


@click.command(epilog="\b\nExample:\n  minibox rename web web-old")
@click.argument("container", shell_complete=complete_container)
@click.argument("new_name")
@click.pass_context
def rename(ctx: click.Context, container: str, new_name: str) -> None:
    """Rename a container."""
    from minibox.engine.container.lifecycle import rename as give_name

    give_name(settings_of(ctx).home, container, new_name)


def _refuse_link(ctx: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        raise UsageError(
            "there are no links", "containers of a network reach each other by name; disconnect takes one out"
        )


@click.command(epilog="\b\nExamples:\n  minibox rm web 4f2d\n  minibox rm -f --all")
@click.option("-f", "--force", is_flag=True, help="Kill running containers first; ignore containers that don't exist")
@click.option("-v", "--volumes", is_flag=True, help="No effect: anonymous volumes are always removed")
@click.option("-a", "--all", "every", is_flag=True, help="Remove all containers")
@click.option("-l", "--link", is_flag=True, hidden=True, expose_value=False, callback=_refuse_link)
@click.argument("containers", metavar="CONTAINER...", nargs=-1, shell_complete=complete_container)
@click.pass_context
def rm(ctx: click.Context, containers: tuple[str, ...], force: bool, volumes: bool, every: bool) -> int:
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
