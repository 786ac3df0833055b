"""The commands info and system info."""

from __future__ import annotations

from minibox.cli.declare import command, option
from minibox.cli.messages import echo
from minibox.cli.parameters import settings_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.cli.declare import Context


@command(epilog="\b\nExamples:\n  minibox info\n  minibox info --format '{{.ContainersRunning}} {{.CgroupVersion}}'")
@option("-f", "--format", "form", metavar="FORMAT", default="", help="json, or a template: {{.Driver}}")
def info(ctx: Context, form: str) -> None:
    """Show the number of containers and images, the drivers, and this machine's properties.

    `minibox doctor` shows what this machine lacks, and how to fix it.
    """
    import json

    from minibox.cli.format.format import sendable
    from minibox.cli.format.template import Template
    from minibox.engine.host.version import version_text
    from minibox.engine.report.info import info as look

    settings = settings_of(ctx)
    render = Template(form).render if form not in ("", "json") else None
    found = look(settings.home, storage_driver=settings.storage_driver, version=version_text())  # fmt: skip
    if render:
        echo(sendable(render(found)))
    elif form:
        echo(sendable(json.dumps(found, ensure_ascii=False)))
    else:
        echo(sendable(format_info(found)))
        for warning in found["Warnings"]:
            echo(f"WARNING: {warning}", err=True)


def format_info(found: dict[str, Any]) -> str:
    """Format the lines of `docker info`."""
    from minibox.cli.commands.stats import format_binary
    from minibox.cli.format.table import printable

    options = [each.removeprefix("name=").partition(",profile=") for each in found["SecurityOptions"]]
    security = [
        line for name, _, profile in options for line in (f"  {name}", *([f"   Profile: {profile}"] * bool(profile)))
    ]
    lines = [
        f"Containers: {found['Containers']}",
        f" Running: {found['ContainersRunning']}",
        f" Paused: {found['ContainersPaused']}",
        f" Stopped: {found['ContainersStopped']}",
        f"Images: {found['Images']}",
        f"Version: {found['ServerVersion']}",
        f"Storage Driver: {found['Driver']}",
        *(f" {name}: {value}" for name, value in found["DriverStatus"]),
        f"Logging Driver: {found['LoggingDriver']}",
        f"Cgroup Driver: {found['CgroupDriver']}",
        f"Cgroup Version: {found['CgroupVersion'] or 'none'}",
        "Security Options:",
        *security,
        f"Kernel Version: {found['KernelVersion']}",
        f"Operating System: {found['OperatingSystem']}",
        f"OSType: {found['OSType']}",
        f"Architecture: {found['Architecture']}",
        f"CPUs: {found['NCPU']}",
        f"Total Memory: {format_binary(found['MemTotal'])}",
        f"Name: {found['Name']}",
        f"Root Dir: {found['DockerRootDir']}",
        f"Runtime Dir: {found['Runroot']}",
    ]
    return "\n".join(map(printable, lines))
