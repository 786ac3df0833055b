"""The output of ``--help`` and ``--version``."""

from __future__ import annotations

from minibox.oci_cli.commands import COMMANDS, GLOBALS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minibox.oci_cli.words import Command, Option

SPECIFICATION = "1.3.0"
HELP_ROW = ("--help, -h", "show this help")


def version_text() -> str:
    """Return the version in runc's format, which dockerd and podman parse."""
    from minibox.engine.host import version

    number = version.version_text()
    return f"minibox-oci version {number}\ncommit: v{number}\nspec: {SPECIFICATION}\n"


def overview() -> str:
    """Return the help for all commands."""
    commands = _table((command.name, command.help) for command in COMMANDS)
    return f"""NAME:
   minibox-oci - minibox as an OCI runtime, with the command line of runc

USAGE:
   minibox-oci [global options] command [command options] [arguments...]

COMMANDS:
{commands}
GLOBAL OPTIONS:
{_options(GLOBALS)}"""


def help_of(command: Command) -> str:
    """Return the help for one command."""
    usage = " ".join(
        filter(None, ("minibox-oci", command.name, "[options]" if command.options else "", command.synopsis))
    )
    about = f"DESCRIPTION:\n   {command.description}\n\n".replace("\n", "\n   ") if command.description else ""
    return f"""NAME:
   minibox-oci {command.name} - {command.help}

USAGE:
   {usage}

{about.rstrip(" ")}OPTIONS:
{_options(command.options)}"""


def _options(options: Iterable[Option]) -> str:
    rows = []
    for option in options:
        value = "" if option.kind == "flag" else " value"
        names = ", ".join(f"{'--' if len(name) > 1 else '-'}{name}{value}" for name in option.names)
        default = f" [{option.default:g}]" if option.kind == "duration" else f" [{option.default}]"
        rows.append((names, option.help + (default if option.default else "")))
    return _table((*rows, HELP_ROW))


def _table(rows: Iterable[tuple[str, str]]) -> str:
    found = list(rows)
    width = max(len(left) for left, _ in found)
    return "".join(f"   {left:{width}}  {right}\n" for left, right in found)
