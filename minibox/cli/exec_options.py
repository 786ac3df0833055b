"""The options of `minibox exec`, read as those of `run_options` are: at once, or else by click."""

from __future__ import annotations

from minibox.cli.run_options import Option, parse_values
from minibox.engine.exec import ExecOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_GROUP = "Options"

# fmt: off
OPTIONS: tuple[Option, ...] = (
    Option("detach", ("--detach", "-d"), "flag", "", "Leave it running, and show nothing of it", _GROUP),
    Option("detach_keys", ("--detach-keys",), "text", "KEYS",
           "Leave its terminal by these keys [ctrl-p,ctrl-q]", _GROUP),
    Option("env", ("--env", "-e"), "list", "NAME[=VALUE]", "Set a variable; NAME alone passes yours on", _GROUP),
    Option("env_file", ("--env-file",), "list", "FILE",
           "Read environment variables from a file", _GROUP, complete="file"),
    Option("interactive", ("--interactive", "-i"), "flag", "", "Connect stdin to the command", _GROUP),
    Option("privileged", ("--privileged",), "flag", "", "All capabilities, no filter", _GROUP),
    Option("tty", ("--tty", "-t"), "flag", "", "Give the command a terminal", _GROUP),
    Option("user", ("--user", "-u"), "text", "USER[:GROUP]",
           "Run as this user of the container, or this number", _GROUP),
    Option("workdir", ("--workdir", "-w"), "text", "DIR", "Start the command in this directory", _GROUP),
)
# fmt: on

BY_NAME: dict[str, Option] = {name: option for option in OPTIONS for name in option.names}


def make_options(values: dict[str, Any], command: list[str]) -> ExecOptions:
    """`ExecOptions` of the options' values (by field; lists as lists) and the command."""
    fields: Any = {field: tuple(value) if type(value) is list else value for field, value in values.items()}
    return ExecOptions(command=tuple(command), **fields)


def parse(words: list[str]) -> tuple[str, ExecOptions] | None:
    """Read ``[OPTIONS] CONTAINER COMMAND...``: the container and the rest; None as of `parse_values`."""
    found = parse_values(words, BY_NAME)
    if not found or len(found[1]) < 2:
        return None
    values, (container, *command) = found
    return container, make_options(values, command)
