"""The tree of commands: their groups, where each is declared, and one line of help for each."""

from __future__ import annotations

import sys

from minibox.base.program import raise_interrupts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = tuple[str, str, str, str, str]

#: Heading, command, module of `minibox.cli` ("" for one of `GROUPS`), its attribute, help. The help is here so that
#: `--help` imports no command.
COMMANDS: tuple[Row, ...] = (
    ("Run", "run", "commands.run", "run", "Run a command in a new container"),
    ("Run", "exec", "commands.run", "exec_", "Run a command in a running container"),
    ("Run", "shell", "commands.run", "shell", "Open a shell in an image or a container"),
    ("Run", "try", "commands.teaching.trial", "try_", "Run a command of this host, then apply or discard its changes"),
    ("Run", "tried", "commands.teaching.trial", "tried", "Show, apply or discard what try kept"),
    ("Look inside", "explain", "commands.teaching.explain", "explain", "Show the steps of a run without running it"),
    ("Look inside", "inspect", "commands.inspect", "inspect", "Show details of containers and images"),
    ("Look inside", "map", "commands.teaching.map", "map_", "Show how the host and its containers hang together"),
    ("Look inside", "why", "commands.why", "why", "Show why containers ended"),
    ("Look inside", "lab", "", "lab", "Learn how containers work, in labs that check themselves"),
    ("Look inside", "doctor", "commands.system", "doctor", "Check what this machine supports, and how to fix the rest"),
    ("Images", "image", "", "image", "Manage images"),
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
    ("Containers", "container", "", "container", "Manage containers"),
    ("Containers", "ps", "commands.ps", "ps", "List containers"),
    ("Containers", "create", "commands.run", "create", "Create a container without starting it"),
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
    ("Containers", "healthcheck", "", "healthcheck", "Check the health of containers"),
    ("Containers", "rename", "commands.lifecycle", "rename", "Rename a container"),
    ("Containers", "rm", "commands.lifecycle", "rm", "Remove containers"),
    ("Containers", "stats", "commands.stats", "stats", "Show the resource usage of containers, live"),
    ("Containers", "update", "commands.update", "update", "Change the limits of containers, even of running ones"),
    ("Containers", "diff", "commands.container_files", "diff", "Show what changed in a container, or between two"),
    ("Containers", "cp", "commands.container_files", "cp", "Copy files between a container and the host"),
    ("Containers", "commit", "commands.container_files", "commit", "Make an image from a container"),
    ("Containers", "export", "commands.container_files", "export", "Write the files of a container to a tar archive"),
    ("Containers", "network", "", "network", "Manage networks: their containers reach each other by name"),
    ("Containers", "volume", "", "volume", "Manage volumes: data that outlives containers"),
    ("Other", "builder", "", "builder", "Manage the cache of minibox build"),
    ("Other", "events", "commands.events", "events", "Show events of containers, images and volumes, live"),
    ("Other", "login", "commands.registry", "login", "Log in to a registry"),
    ("Other", "logout", "commands.registry", "logout", "Log out of a registry"),
    ("Other", "system", "", "system", "Manage disk space: show it, free it, check for damage"),
    ("Other", "info", "commands.info", "info", "Show counts, drivers and this machine's properties"),
    ("Other", "version", "commands.system", "version", "Show versions"),
    ("Other", "completion", "commands.system", "completion", "Print a completion script for your shell"),
)

#: Subcommands of `image`, as in Docker: the commands under "Images" above, two with a shorter name, and a few more.
IMAGE_COMMANDS: tuple[Row, ...] = (
    *(
        ("Commands", {"images": "ls", "rmi": "rm"}.get(name, name), module, attribute, text)
        for heading, name, module, attribute, text in COMMANDS
        if heading == "Images" and name != "image"
    ),
    ("Commands", "diff", "commands.container_files", "diff", "Show what changed in an image, or between two"),
    ("Commands", "inspect", "commands.inspect", "inspect_image", "Show details of images"),
    ("Commands", "prune", "commands.image", "prune", "Remove unused images"),
)

#: Subcommands of `container`, like those of `image`.
CONTAINER_COMMANDS: tuple[Row, ...] = (
    *(
        ("Commands", {"ps": "ls"}.get(name, name), module, attribute, text)
        for heading, name, module, attribute, text in COMMANDS
        if heading in ("Run", "Containers") and name not in ("container", "network", "volume", "shell", "try", "tried")
    ),
    ("Commands", "inspect", "commands.inspect", "inspect", "Show details of containers"),
    ("Commands", "prune", "commands.disk", "prune_containers", "Remove all stopped containers"),
)

VOLUME_COMMANDS: tuple[Row, ...] = (
    ("Commands", "create", "commands.volume", "create", "Create a volume"),
    ("Commands", "inspect", "commands.volume", "inspect", "Show details of volumes"),
    ("Commands", "ls", "commands.volume", "ls", "List volumes"),
    ("Commands", "prune", "commands.volume", "prune", "Remove unused volumes"),
    ("Commands", "rm", "commands.volume", "rm", "Remove volumes"),
)

NETWORK_COMMANDS: tuple[Row, ...] = (
    ("Commands", "connect", "commands.network", "connect", "Connect a container to a network"),
    ("Commands", "create", "commands.network", "create", "Create a network"),
    ("Commands", "disconnect", "commands.network", "disconnect", "Disconnect a container from a network"),
    ("Commands", "inspect", "commands.network", "inspect", "Show details of networks"),
    ("Commands", "ls", "commands.network", "ls", "List networks"),
    ("Commands", "prune", "commands.network", "prune", "Remove unused networks"),
    ("Commands", "rm", "commands.network", "rm", "Remove networks"),
)

HEALTH_COMMANDS: tuple[Row, ...] = (
    ("Commands", "run", "commands.health", "run", "Check the health of a container now"),
)

BUILDER_COMMANDS: tuple[Row, ...] = (
    ("Commands", "build", "commands.build", "build", "Make an image from a Dockerfile"),
    ("Commands", "du", "commands.builder", "du", "Show the disk space of the build cache"),
    ("Commands", "prune", "commands.builder", "prune", "Remove unused lines of the build cache"),
)

LAB_COMMANDS: tuple[Row, ...] = (
    ("Commands", "list", "commands.teaching.lab", "list_", "List the labs"),
    ("Commands", "start", "commands.teaching.lab", "start", "Start a lab, and open a shell in its machine"),
    ("Commands", "check", "commands.teaching.lab", "check", "Check a lab from outside"),
    ("Commands", "hint", "commands.teaching.lab", "hint", "Show the next hint"),
    ("Commands", "solution", "commands.teaching.lab", "solution", "Show a solution"),
    ("Commands", "reset", "commands.teaching.lab", "reset", "End the machine of a lab, to begin again"),
    ("Commands", "status", "commands.teaching.lab", "status", "Show which labs are done"),
    ("Commands", "report", "commands.teaching.lab", "report", "Report on all labs, for a teacher"),
)

SYSTEM_COMMANDS: tuple[Row, ...] = (
    ("Commands", "boot", "commands.disk", "boot", "Start containers by their restart policy after a boot"),
    ("Commands", "check", "commands.disk", "check", "Check everything on disk for damage"),
    ("Commands", "df", "commands.disk", "df", "Show the disk usage"),
    ("Commands", "events", "commands.events", "events", "Show events of containers, images and volumes, live"),
    ("Commands", "info", "commands.info", "info", "Show counts, drivers and this machine's properties"),
    ("Commands", "prune", "commands.disk", "prune", "Remove unused containers, networks and images"),
)

#: Commands that may go on until Ctrl-C and leave nothing to clean up: the kernel ends them (`end_at_interrupt`).
UNTIL_INTERRUPT = ("attach", "events", "logs", "stats", "wait")

#: The rows of the groups, by name.
GROUPS: dict[str, tuple[Row, ...]] = {
    "image": tuple(sorted(IMAGE_COMMANDS)),
    "container": tuple(sorted(CONTAINER_COMMANDS)),
    "network": NETWORK_COMMANDS,
    "volume": VOLUME_COMMANDS,
    "healthcheck": HEALTH_COMMANDS,
    "builder": BUILDER_COMMANDS,
    "lab": LAB_COMMANDS,
    "system": SYSTEM_COMMANDS,
}


def row_of(rows: tuple[Row, ...], name: str) -> Row | None:
    """Return the row of a command."""
    for row in rows:
        if row[1] == name:
            return row
    return None


def load(row: Row) -> Any:
    """Import the module of a command and return its object; from now on Ctrl-C is an exception if the command needs that."""
    _, name, module, attribute, _ = row
    path = f"minibox.cli.{module}"
    __import__(path)  # importlib would be a module more
    command = getattr(sys.modules[path], attribute)
    if name not in UNTIL_INTERRUPT:
        raise_interrupts()
    return command
