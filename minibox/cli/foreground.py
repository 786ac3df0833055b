"""Run a container for the commands ``run`` and ``shell``, make one for ``create``, and pull the image that a command needs."""

from __future__ import annotations

import os
import sys

from minibox.cli.messages import echo, note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.cli.settings import Settings
    from minibox.engine.spec.options import RunOptions
    from minibox.image.reference import ImageName


def start(command: str, options: RunOptions, settings: Settings) -> int:
    """Run a container for the command ``run`` or ``shell``, and return the exit status."""
    from minibox.engine.container import start as container

    if command == "shell":
        from minibox.engine.container.shell import container_of, shell_in, shell_options

        terminal = os.isatty(0) and os.isatty(1)
        if container_id := container_of(options, settings.home.root):
            return shell_in(settings.home, container_id, terminal=terminal, on_note=note)
        options = shell_options(options, terminal=terminal)
    trace = None
    if options.trace or options.svg or options.html:
        from minibox.cli.pictures import show_trace

        trace = show_trace(options)
    run_it = container.run_detached if options.detach else container.run
    if options.detach:
        sys.stdout.write("")  # fails now if stdout is closed, before there is a container whose id can't be printed
    result = run_it(
        settings.home,
        options,
        storage_driver=settings.storage_driver,
        on_trace=trace,
        on_note=note,
        pull=lambda name, platform: pull(settings, name, platform, quiet=options.quiet),
    )
    if isinstance(result, int):
        return result
    sys.stdout.write(result + "\n")
    return 0


def create(options: RunOptions, settings: Settings) -> int:
    """Make a container for the command ``create``, print its id, and return the exit status."""
    from minibox.engine.container.start import create as make

    id = make(
        settings.home,
        options,
        storage_driver=settings.storage_driver,
        on_note=note,
        pull=lambda name, platform: pull(settings, name, platform, quiet=options.quiet),
    )
    echo(id)
    return 0


def pull(settings: Settings, name: ImageName, platform: str, *, quiet: bool = False) -> None:
    """Pull an image that a command needs, and show the progress."""
    from minibox.cli.pull import show_pull

    show_pull(settings, name, None if quiet else sys.stderr, platform=platform)
