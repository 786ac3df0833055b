"""The options of `minibox exec`. Like those of `run_options`, both the fast parser and click read them."""

from __future__ import annotations

from minibox.cli.run_options import Option, parse_values
from minibox.engine.container.exec import ExecOptions
from minibox.engine.spec.options import typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_GROUP = "Options"

# fmt: off
OPTIONS: tuple[Option, ...] = (
    Option("detach", ("--detach", "-d"), "flag", "", "Run it in the background, without output", _GROUP),
    Option("detach_keys", ("--detach-keys",), "text", "KEYS",
           "Keys that detach you [ctrl-p,ctrl-q]", _GROUP),
    Option("env", ("--env", "-e"), "list", "NAME[=VALUE]", "Set a variable; NAME alone passes yours on", _GROUP),
    Option("env_file", ("--env-file",), "list", "FILE",
           "Read environment variables from a file", _GROUP, complete="file"),
    Option("interactive", ("--interactive", "-i"), "flag", "", "Connect stdin to the command", _GROUP),
    Option("privileged", ("--privileged",), "flag", "", "All capabilities, no seccomp filter", _GROUP),
    Option("tty", ("--tty", "-t"), "flag", "", "Give the command a terminal", _GROUP),
    Option("user", ("--user", "-u"), "text", "USER[:GROUP]",
           "Run as this user name or number", _GROUP),
    Option("workdir", ("--workdir", "-w"), "text", "DIR", "Start the command in this directory", _GROUP),
)
# fmt: on

BY_NAME: dict[str, Option] = {name: option for option in OPTIONS for name in option.names}


def make_options(values: dict[str, Any], command: list[str]) -> ExecOptions:
    """Make `ExecOptions` from the options' values by field, and the command."""
    fields: Any = {field: tuple(value) if type(value) is list else value for field, value in values.items()}
    return ExecOptions(command=tuple(command), **typed(fields))


def parse(words: list[str]) -> tuple[str, ExecOptions] | None:
    """Read ``[OPTIONS] CONTAINER COMMAND...``: return the container and its `ExecOptions`; None as for `parse_values`."""
    found = parse_values(words, BY_NAME)
    if not found or len(found[1]) < 2:
        return None
    values, (container, *command) = found
    return container, make_options(values, command)
