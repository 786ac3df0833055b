"""The entry point of `minibox-oci`."""

from __future__ import annotations

import os
import sys

from minibox.errors import MiniboxError, kernel_says
from minibox.oci_cli.commands import COMMANDS, GLOBALS
from minibox.oci_cli.log import Log
from minibox.oci_cli.words import BadWords, HelpAsked, read
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from minibox.oci_cli.words import Command

STATUS_FAILED, STATUS_NO_SUCH_COMMAND, STATUS_EXEC_FAILED = 1, 3, 255


@record
class Settings:
    """The global options.

    Attributes:
        root: directory of the containers' state.
        rootless: go on without cgroups that can't be made; None: if not the host's root.
    """

    root: str
    log: Log
    systemd_cgroup: bool
    rootless: bool | None


def main(argv: list[str] | None = None) -> int:
    """Run one command line; ``argv`` without the program's name. Returns the exit status, never exits."""
    words = list(sys.argv[1:] if argv is None else argv)
    log, command = Log(), None
    try:
        given, rest = _read_globals(words)
        log = Log(given["log"], given["log-format"], debug=bool(given["debug"]))
        if given["version"] or rest[:1] == ["version"]:
            return _show("version_text")
        if log.form not in ("text", "json"):
            form, log.form = log.form, "text"
            raise MiniboxError(f"invalid log-format: {form}")
        if not rest or rest[0] in ("help", "h"):
            return _help(log, rest[1:])
        command = _command(rest[0])
        if command is None:
            return _unknown(log, rest[0])
        settings = _settings(given, log)
        values, others = _read_command(command, rest[1:])
        module = _module(command.module)
        log.write("debug", f"{command.name} {' '.join(others)} in {settings.root}")
        status: int = getattr(module, command.function)(settings, values, others)
        sys.stdout.flush()
        return status
    except _Shown as shown:
        if shown.error:
            log.write("error", shown.error)
        return STATUS_FAILED if shown.error else 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return STATUS_FAILED
    except MiniboxError as error:
        return _failed(log, command, str(error), error.hint)
    except OSError as error:
        place = f"{error.filename!r}: " if error.filename else ""
        return _failed(log, command, place + kernel_says(error))
    except Exception as error:
        return _failed(log, command, f"internal error: {type(error).__name__}: {error}", "this is a bug in minibox")


def program() -> NoReturn:
    """What the installed `minibox-oci` runs: `main`, and out, without the interpreter's tidying up."""
    status = main()
    if launcher := sys.modules.get("minibox.linux.launcher"):
        launcher.end_all()  # whoever becomes its parent may not care for it
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            status = status or STATUS_FAILED
    os._exit(status)


class _Shown(Exception):
    """Help was printed; ``error`` is why, "" when it was asked for."""

    def __init__(self, error: str = "") -> None:
        super().__init__(error)
        self.error = error


def _failed(log: Log, command: Command | None, message: str, hint: str | None = None) -> int:
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
    """Its options and the words that follow them."""
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


def _settings(given: dict[str, Any], log: Log) -> Settings:
    from minibox.engine.oci.state import default_root

    rootless = {"true": True, "false": False, "auto": None}
    if given["rootless"] not in rootless:
        raise MiniboxError(f"invalid value for --rootless: {given['rootless']}", "one of true, false, auto")
    root = os.path.abspath(given["root"]) if given["root"] else default_root(os.environ)
    return Settings(root, log, bool(given["systemd-cgroup"]), rootless[given["rootless"]])


def _command(name: str) -> Command | None:
    return next((command for command in COMMANDS if command.name == name), None)


def _help(log: Log, words: list[str]) -> int:
    if not words:
        return _show("overview")
    command = _command(words[0])
    return _show("help_of", command) if command else _unknown(log, words[0])


def _unknown(log: Log, name: str) -> int:
    log.write("error", f"No help topic for '{name}'")
    return STATUS_NO_SUCH_COMMAND


def _show(what: str, *arguments: object) -> int:
    _print(getattr(_module("help"), what)(*arguments))
    return 0


def _module(name: str) -> Any:
    """A module of this package; `importlib` takes 1 ms to import."""
    return __import__(f"minibox.oci_cli.{name}", fromlist=(name,))


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
