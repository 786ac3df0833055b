"""The entry point of `minibox-oci`.

`state` must take little longer than a bare interpreter. So modules that it doesn't need are imported where they are
used: `minibox.errors` alone takes a millisecond.
"""

from __future__ import annotations

import os
import sys

from minibox.base.program import begin, end, is_shortage, too_few_descriptors
from minibox.oci_cli.commands import GLOBALS, Settings, command_of, log_of
from minibox.oci_cli.words import BadWords, HelpAsked, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from minibox.oci_cli.log import Log
    from minibox.oci_cli.words import Command

STATUS_FAILED, STATUS_NO_SUCH_COMMAND, STATUS_EXEC_FAILED = 1, 3, 255


def main(argv: list[str] | None = None) -> int:
    """Run one command line, ``argv`` without the program's name, and return the exit status. Never exits."""
    words = list(sys.argv[1:] if argv is None else argv)
    given: dict[str, Any] = {}
    command = None
    try:
        given, rest = _read_globals(words)
        if given["version"] or rest[:1] == ["version"]:
            return _show("version_text")
        if given["log-format"] not in ("text", "json"):
            raise _Shown(f"invalid log-format: {given['log-format']}")
        if not rest or rest[0] in ("help", "h"):
            return _help(given, rest[1:])
        command = command_of(rest[0])
        if command is None:
            return _unknown(given, rest[0])
        if not command.module:
            raise _unsupported(command, rest[1:])
        settings = _settings(given)
        values, others = _read_command(command, rest[1:])
        if given["debug"]:
            settings.log.write("debug", f"{command.name} {' '.join(others)} in {settings.root}")
        status: int = getattr(_module(command.module), command.function)(settings, values, others)
        sys.stdout.flush()
        return status
    except _Shown as shown:
        if shown.error:
            log_of(given).write("error", shown.error)
        return STATUS_FAILED if shown.error else 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return STATUS_FAILED
    except Exception as error:
        return _failed(log_of(given), command, error)


def program() -> NoReturn:
    """Run the installed `minibox-oci`: call `main` and exit without the interpreter's clean-up."""
    begin()
    if why := too_few_descriptors():
        os.write(2, f"minibox-oci: {why}\n".encode())
        os._exit(STATUS_FAILED)
    end(main(), failed=STATUS_FAILED)


class _Shown(Exception):
    """Help or a usage message was printed. ``error`` is still to be logged; "" if the user asked for help."""

    def __init__(self, error: str = "") -> None:
        super().__init__(error)
        self.error = error


def _failed(log: Log, command: Command | None, error: Exception) -> int:
    from minibox.errors import MiniboxError, kernel_says

    message, hint = str(error), None
    if isinstance(error, MiniboxError):
        hint = error.hint
    elif is_shortage(error):
        message = "there is not enough memory"
    elif isinstance(error, OSError):
        message = (f"{error.filename!r}: " if error.filename else "") + kernel_says(error)
    else:
        message, hint = f"internal error: {type(error).__name__}: {error}", "this is a bug in minibox"
    if log.debug:
        import traceback

        log.write("debug", traceback.format_exc())
    if command and command.name == "exec":
        log.write("error", f"exec failed: {message}", hint)
        return STATUS_EXEC_FAILED
    log.write("error", message, hint)
    return STATUS_FAILED


def _read_globals(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    try:
        return read(words, GLOBALS, mixed=False)
    except HelpAsked:
        _show("overview")
        raise _Shown from None
    except BadWords as error:
        _print(f"Incorrect Usage. {error}\n\n")
        _show("overview")
        raise _Shown(str(error)) from None


def _read_command(command: Command, words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Read the options of a command and the words that follow them."""
    try:
        values, others = read(words, command.options, mixed=command.mixed)
    except HelpAsked:
        _show("help_of", command)
        raise _Shown from None
    except BadWords as error:
        _print(f"Incorrect Usage: {error}\n\n")
        _show("help_of", command)
        raise _Shown(str(error)) from None
    count, least, most = len(others), command.least, command.most
    if count < least or 0 <= most < count:
        kind = "exactly" if least == most else "a minimum of" if count < least else "a maximum of"
        number = most if kind == "a maximum of" else least
        _print("Incorrect Usage.\n\n")
        _show("help_of", command)
        raise _Shown(f'minibox-oci: "{command.name}" requires {kind} {number} argument(s)')
    return values, others


def _settings(given: dict[str, Any]) -> Settings:
    from minibox.engine.oci.state import default_root

    rootless = {"true": True, "false": False, "auto": None}
    if given["rootless"] not in rootless:
        raise _Shown(f"invalid value for --rootless: {given['rootless']}: one of true, false, auto")
    if given["cgroup-manager"] not in ("cgroupfs", "systemd", "disabled"):
        raise _Shown(f"unknown cgroup manager {given['cgroup-manager']!r}: one of cgroupfs, systemd, disabled")
    root = os.path.normpath(given["root"]) if given["root"] else default_root(os.environ)
    if not os.path.isabs(root):
        from minibox.base.paths import absolute

        root = absolute(root)
    return Settings(given, root, rootless[given["rootless"]])


def _unsupported(command: Command, words: list[str]) -> _Shown:
    """Return the error even for ``--help``: Podman uses its status to find out whether checkpoints are supported."""
    if {"--help", "-help", "-h"} & {*words}:
        _show("help_of", command)
    return _Shown(f"{command.name} is not supported by minibox-oci")


def _help(given: dict[str, Any], words: list[str]) -> int:
    if not words:
        return _show("overview")
    command = command_of(words[0])
    return _show("help_of", command) if command else _unknown(given, words[0])


def _unknown(given: dict[str, Any], name: str) -> int:
    log_of(given).write("error", f"No help topic for '{name}'")
    return STATUS_NO_SUCH_COMMAND


def _show(what: str, *arguments: object) -> int:
    _print(getattr(_module("help"), what)(*arguments))
    return 0


def _module(name: str) -> Any:
    """Import a module of this package without `importlib`, which takes 1 ms to import."""
    return __import__(f"minibox.oci_cli.{name}", fromlist=(name,))


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
