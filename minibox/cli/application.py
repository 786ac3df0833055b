"""The click application: the tree of commands, each imported when it is used, and click's errors in minibox's words."""

from __future__ import annotations

import os
from importlib import import_module

import click

from minibox.base.program import raise_interrupts
from minibox.cli.parameters import RefusedValue
from minibox.cli.settings import COMPLETE_VARIABLE, make_settings
from minibox.errors import UsageError
from minibox.storage.snapshot import DRIVERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WIDTH_MAX = 120
CONTEXT_SETTINGS = {"max_content_width": WIDTH_MAX}

#: Heading, command, module of `minibox.cli`, its attribute, help. The help is here so that `--help` imports no command.
COMMANDS = (
    ("Run", "run", "commands.run", "run", "Run a command in a new container"),
    ("Run", "exec", "commands.running_containers", "exec_", "Run a command in a running container"),
    ("Run", "shell", "commands.run", "shell", "Open a shell in an image or a container"),
    ("Run", "try", "commands.teaching.trial", "try_", "Run a command of this host, then apply or discard its changes"),
    ("Run", "tried", "commands.teaching.trial", "tried", "Show, apply or discard what try kept"),
    ("Look inside", "explain", "commands.teaching.explain", "explain", "Show the steps of a run without running it"),
    ("Look inside", "inspect", "commands.inspect", "inspect", "Show details of containers and images"),
    ("Look inside", "map", "commands.teaching.map", "map_", "Show how the host and its containers hang together"),
    ("Look inside", "why", "commands.why", "why", "Show why containers ended"),
    ("Look inside", "lab", "application", "lab", "Learn how containers work, in labs that check themselves"),
    ("Look inside", "doctor", "commands.system", "doctor", "Check what this machine supports, and how to fix the rest"),
    ("Images", "image", "application", "image", "Manage images"),
    ("Images", "build", "commands.build", "build", "Make an image from a Dockerfile"),
    ("Images", "images", "commands.image", "images", "List images"),
    ("Images", "tag", "commands.image", "tag", "Give an image another name"),
    ("Images", "rmi", "commands.image", "rmi", "Remove images"),
    ("Images", "history", "commands.image", "history", "Show how an image was made"),
    ("Images", "search-local", "commands.image", "search_local", "Find images in the store by name, label or file"),
    ("Images", "pull", "commands.registry", "pull", "Download an image from a registry"),
    ("Images", "push", "commands.registry", "push", "Upload an image to a registry"),
    ("Images", "save", "commands.archive", "save", "Save images to an archive"),
    ("Images", "load", "commands.archive", "load", "Load images from an archive"),
    ("Images", "import", "commands.archive", "import_", "Make an image from a tar archive of a root file system"),
    ("Containers", "container", "application", "container", "Manage containers"),
    ("Containers", "ps", "commands.ps", "ps", "List containers"),
    ("Containers", "create", "commands.lifecycle", "create", "Create a container without starting it"),
    ("Containers", "start", "commands.lifecycle", "start", "Start created or stopped containers"),
    ("Containers", "stop", "commands.lifecycle", "stop", "Stop containers"),
    ("Containers", "restart", "commands.lifecycle", "restart", "Restart containers"),
    ("Containers", "kill", "commands.lifecycle", "kill", "Send a signal to containers"),
    ("Containers", "pause", "commands.lifecycle", "pause", "Pause containers"),
    ("Containers", "unpause", "commands.lifecycle", "unpause", "Resume paused containers"),
    ("Containers", "wait", "commands.lifecycle", "wait", "Wait until containers have ended"),
    ("Containers", "attach", "commands.running_containers", "attach", "Attach your terminal to a container"),
    ("Containers", "logs", "commands.running_containers", "logs", "Show the output of a container"),
    ("Containers", "top", "commands.running_containers", "top", "Show the processes of a container"),
    ("Containers", "port", "commands.running_containers", "port", "Show the published ports of a container"),
    ("Containers", "healthcheck", "application", "healthcheck", "Check the health of containers"),
    ("Containers", "rename", "commands.lifecycle", "rename", "Rename a container"),
    ("Containers", "rm", "commands.lifecycle", "rm", "Remove containers"),
    ("Containers", "stats", "commands.stats", "stats", "Show the resource usage of containers, live"),
    ("Containers", "update", "commands.update", "update", "Change the limits of containers, even of running ones"),
    ("Containers", "diff", "commands.container_files", "diff", "Show what changed in a container, or between two"),
    ("Containers", "cp", "commands.container_files", "cp", "Copy files between a container and the host"),
    ("Containers", "commit", "commands.container_files", "commit", "Make an image from a container"),
    ("Containers", "export", "commands.container_files", "export", "Write the files of a container to a tar archive"),
    ("Containers", "network", "application", "network", "Manage networks: their containers reach each other by name"),
    ("Containers", "volume", "application", "volume", "Manage volumes: data that outlives containers"),
    ("Other", "builder", "application", "builder", "Manage the cache of minibox build"),
    ("Other", "events", "commands.events", "events", "Show events of containers, images and volumes, live"),
    ("Other", "login", "commands.registry", "login", "Log in to a registry"),
    ("Other", "logout", "commands.registry", "logout", "Log out of a registry"),
    ("Other", "system", "application", "system", "Manage disk space: show it, free it, check for damage"),
    ("Other", "info", "commands.info", "info", "Show counts, drivers and this machine's properties"),
    ("Other", "version", "commands.system", "version", "Show versions"),
    ("Other", "completion", "commands.system", "completion", "Print a completion script for your shell"),
)

#: Subcommands of `image`, as in Docker: the commands under "Images" above, two with a shorter name, and a few more.
IMAGE_COMMANDS = (
    *(
        ("Commands", {"images": "ls", "rmi": "rm"}.get(name, name), *rest)
        for heading, name, *rest in COMMANDS
        if heading == "Images" and name != "image"
    ),
    ("Commands", "diff", "commands.container_files", "diff", "Show what changed in an image, or between two"),
    ("Commands", "inspect", "commands.inspect", "inspect_image", "Show details of images"),
    ("Commands", "prune", "commands.image", "prune", "Remove unused images"),
)

#: Subcommands of `container`, like those of `image`.
CONTAINER_COMMANDS = (
    *(
        ("Commands", {"ps": "ls"}.get(name, name), *rest)
        for heading, name, *rest in COMMANDS
        if heading in ("Run", "Containers") and name not in ("container", "network", "volume", "shell", "try", "tried")
    ),
    ("Commands", "inspect", "commands.inspect", "inspect", "Show details of containers"),
    ("Commands", "prune", "commands.disk", "prune_containers", "Remove all stopped containers"),
)

VOLUME_COMMANDS = (
    ("Commands", "create", "commands.volume", "create", "Create a volume"),
    ("Commands", "inspect", "commands.volume", "inspect", "Show details of volumes"),
    ("Commands", "ls", "commands.volume", "ls", "List volumes"),
    ("Commands", "prune", "commands.volume", "prune", "Remove unused volumes"),
    ("Commands", "rm", "commands.volume", "rm", "Remove volumes"),
)

NETWORK_COMMANDS = (
    ("Commands", "connect", "commands.network", "connect", "Connect a container to a network"),
    ("Commands", "create", "commands.network", "create", "Create a network"),
    ("Commands", "disconnect", "commands.network", "disconnect", "Disconnect a container from a network"),
    ("Commands", "inspect", "commands.network", "inspect", "Show details of networks"),
    ("Commands", "ls", "commands.network", "ls", "List networks"),
    ("Commands", "prune", "commands.network", "prune", "Remove unused networks"),
    ("Commands", "rm", "commands.network", "rm", "Remove networks"),
)

BUILDER_COMMANDS = (
    ("Commands", "build", "commands.build", "build", "Make an image from a Dockerfile"),
    ("Commands", "du", "commands.builder", "du", "Show the disk space of the build cache"),
    ("Commands", "prune", "commands.builder", "prune", "Remove unused lines of the build cache"),
)

LAB_COMMANDS = (
    ("Commands", "list", "commands.teaching.lab", "list_", "List the labs"),
    ("Commands", "start", "commands.teaching.lab", "start", "Start a lab, and open a shell in its machine"),
    ("Commands", "check", "commands.teaching.lab", "check", "Check a lab from outside"),
    ("Commands", "hint", "commands.teaching.lab", "hint", "Show the next hint"),
    ("Commands", "solution", "commands.teaching.lab", "solution", "Show a solution"),
    ("Commands", "reset", "commands.teaching.lab", "reset", "End the machine of a lab, to begin again"),
    ("Commands", "status", "commands.teaching.lab", "status", "Show which labs are done"),
    ("Commands", "report", "commands.teaching.lab", "report", "Report on all labs, for a teacher"),
)

SYSTEM_COMMANDS = (
    ("Commands", "boot", "commands.disk", "boot", "Start containers by their restart policy after a boot"),
    ("Commands", "check", "commands.disk", "check", "Check everything on disk for damage"),
    ("Commands", "df", "commands.disk", "df", "Show the disk usage"),
    ("Commands", "events", "commands.events", "events", "Show events of containers, images and volumes, live"),
    ("Commands", "info", "commands.info", "info", "Show counts, drivers and this machine's properties"),
    ("Commands", "prune", "commands.disk", "prune", "Remove unused containers, networks and images"),
)

#: Commands that may go on until Ctrl-C and leave nothing to clean up: the kernel ends them (`end_at_interrupt`).
UNTIL_INTERRUPT = ("attach", "events", "logs", "stats", "wait")

#: Options of `docker run` that minibox lacks, and what to use instead.
DOCKER_ONLY = {
    "--volumes-from": "mount the same volumes or directories with -v",
}


class Application(click.Group):
    """A group of the commands in ``rows``; see `COMMANDS`. A command's module is imported when the command is used."""

    rows: tuple[tuple[str, ...], ...] = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for _, name, *_ in self.rows]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for _, name, module, attribute, _ in self.rows:
            if name == cmd_name:
                command: click.Command = getattr(import_module(f"minibox.cli.{module}"), attribute)
                if not isinstance(command, click.Group) and name not in UNTIL_INTERRUPT:
                    raise_interrupts()
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and not ctx.resilient_parsing:
            if args[0] not in self.list_commands(ctx):
                raise _unknown("command", args[0], self.list_commands(ctx), f"{_typed(ctx)} --help lists the commands")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[click.shell_completion.CompletionItem]:
        items = [
            click.shell_completion.CompletionItem(name, help=help_text)
            for _, name, _, _, help_text in self.rows
            if name.startswith(incomplete)
        ]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(len(name) for _, name, *_ in self.rows)
        for heading in dict.fromkeys(row[0] for row in self.rows):
            with formatter.section(heading):
                formatter.write_dl([(row[1].ljust(longest), row[4]) for row in self.rows if row[0] == heading])


@click.group(
    cls=Application,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARG]...",
    context_settings=CONTEXT_SETTINGS,
    epilog="""\b
Examples:
  minibox run --rm base echo hello   run one command in the built-in image
  minibox shell base                 look around in it
  minibox explain run base true      see every step of a start
\b
minibox COMMAND --help shows more about a command.""",
)
@click.option("--root", metavar="DIR", help="Directory for images and containers  [$MINIBOX_ROOT]", type=click.Path())
@click.option("--runroot", metavar="DIR", help="Directory for run-time state  [$MINIBOX_RUNROOT]", type=click.Path())
@click.option(
    "--storage-driver",
    metavar="NAME",
    help="Store layers and containers with overlay, btrfs, erofs or copy  [$MINIBOX_STORAGE_DRIVER]",
    shell_complete=lambda ctx, param, incomplete: [name for name in DRIVERS if name.startswith(incomplete)],
)
@click.option("--debug", is_flag=True, help="Show a traceback with each error")
@click.option("--version", is_flag=True, help="Show the version and exit")
@click.pass_context
def application(
    ctx: click.Context, root: str | None, runroot: str | None, storage_driver: str | None, debug: bool, version: bool
) -> None:
    """Run containers, and see how they work."""
    ctx.obj = make_settings(
        {"root": root, "runroot": runroot, "storage_driver": storage_driver, "debug": debug}, os.environ
    )
    if version:
        from minibox.engine.host.version import version_text

        click.echo(f"minibox {version_text()}")
        ctx.exit(0)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


class ImageCommands(Application):
    rows = tuple(sorted(IMAGE_COMMANDS))


class ContainerCommands(Application):
    rows = tuple(sorted(CONTAINER_COMMANDS))


class NetworkCommands(Application):
    rows = NETWORK_COMMANDS


class VolumeCommands(Application):
    rows = VOLUME_COMMANDS


class HealthCommands(Application):
    rows = (("Commands", "run", "commands.health", "run", "Check the health of a container now"),)


class BuilderCommands(Application):
    rows = BUILDER_COMMANDS


class LabCommands(Application):
    rows = LAB_COMMANDS


class SystemCommands(Application):
    rows = SYSTEM_COMMANDS


def _group(name: str, cls: type[Application], example: str, help_text: str) -> click.Group:
    """Make a command with subcommands, which shows its help when none is given."""

    def show_help() -> None:
        ctx = click.get_current_context()
        if ctx.invoked_subcommand is None:
            click.echo(ctx.get_help())

    return cls(
        name,
        callback=show_help,
        invoke_without_command=True,
        subcommand_metavar="COMMAND [ARG]...",
        context_settings=CONTEXT_SETTINGS,
        help=help_text,
        epilog=f"\b\nExample:\n  minibox {name} {example}\n\nminibox {name} COMMAND --help shows more about a command.",
    )


image = _group("image", ImageCommands, "ls", "Manage images.")
container = _group("container", ContainerCommands, "ls", "Manage containers.")
network = _group("network", NetworkCommands, "ls", "Manage networks.")
volume = _group("volume", VolumeCommands, "ls", "Manage volumes.")
healthcheck = _group("healthcheck", HealthCommands, "run web", "Check the health of containers.")
builder = _group("builder", BuilderCommands, "du", "Manage the cache of minibox build.")
lab = _group("lab", LabCommands, "start 1", "Learn how containers work, in labs that check themselves.")
system = _group("system", SystemCommands, "df", "Manage disk space and the whole system.")


def run_click(words: list[str]) -> int:
    """Parse ``words`` with click, run the command, and return its exit status.

    Raises:
        UsageError: the command line is wrong.
    """
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        from minibox.cli.completion import complete

        return complete(application, instruction)
    try:
        # Not application.main(): it exits, and replaces sys.stdout when a pipe breaks.
        with application.make_context("minibox", words) as ctx:
            status: Any = application.invoke(ctx)
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.ClickException as error:
        raise usage_error(error) from error
    return status if isinstance(status, int) else 0


def usage_error(error: click.ClickException) -> UsageError:
    """Turn an error of click into one line in minibox's words, with a hint."""
    ctx = getattr(error, "ctx", None)
    path = _typed(ctx) if ctx is not None else "minibox"
    see = f"see {path} --help"
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        if name in DOCKER_ONLY and ctx is not None and ctx.info_name in ("run", "shell"):
            return UsageError(f"unknown option {name}", hint=DOCKER_ONLY[name])
        known = [] if ctx is None else [name for param in ctx.command.get_params(ctx) for name in param.opts]
        return _unknown("option", name, [option for option in known if option.startswith("--")], see)
    if isinstance(error, click.BadOptionUsage):
        if "requires" in error.message:
            return UsageError(f"option {error.option_name} needs a value", hint=see)
        return UsageError(f"option {error.option_name} takes no value", hint=see)
    if isinstance(error, click.MissingParameter) and error.param is not None and ctx is not None:
        usage = " ".join([path, *ctx.command.collect_usage_pieces(ctx)])
        return UsageError(f"{error.param.human_readable_name} is missing", hint=f"usage: {usage}")
    if isinstance(error, RefusedValue):
        return UsageError(error.message, hint=error.advice or see)
    if isinstance(error, click.BadParameter):
        name = error.param.opts[0] if isinstance(error.param, click.Option) else _metavar(error)
        return UsageError(f"{name}: {_as_ours(error.message)}" if name else _as_ours(error.message), hint=see)
    return UsageError(_as_ours(error.format_message()), hint=see)


def _typed(ctx: click.Context) -> str:
    """Return the commands as the user types them: like `command_path`, but without the arguments of parent commands."""
    return " ".join([*([_typed(ctx.parent)] if ctx.parent is not None else []), str(ctx.info_name)])


def _metavar(error: click.BadParameter) -> str:
    return error.param.human_readable_name if error.param is not None else ""


def _as_ours(message: str) -> str:
    return (message[:1].lower() + message[1:]).removesuffix(".")


def _unknown(what: str, word: str, known: list[str], otherwise: str | None) -> UsageError:
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {close[0]}?" if close else otherwise
    return UsageError(f"unknown {what} {word}", hint=hint)
