"""The entry point of the command line.

Ordinary command lines are read without click: ``run``, ``shell``, ``create`` and ``exec`` by `run_options`, the others by
`reader`. Everything else goes through click (`cli.application`), which is imported only then.
"""

from __future__ import annotations

import os
import sys

from minibox.base.damage import Listening
from minibox.base.files import closing
from minibox.base.program import (
    begin,
    end,
    end_at_interrupt,
    hint_of_limit,
    is_shortage,
    raise_interrupts,
    too_few_descriptors,
)
from minibox.cli.messages import echo, report, warn
from minibox.cli.settings import COMPLETE_VARIABLE, make_settings, read_globals
from minibox.errors import MiniboxError, kernel_says, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


STATUS_FAILED = 125
STATUS_INTERRUPTED = 130
STATUS_BROKEN_PIPE = 141


def main(argv: list[str] | None = None) -> int:
    """Run one command line, ``argv`` without the program's name, and return the exit status. Never exits.

    It keeps nothing between calls. One process may call it many times, with other descriptors, environment and working
    directory.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    given, rest = read_globals(words)
    debug = bool(given.get("debug"))
    try:
        with Listening(warn):
            return _main(words, given, rest)
    except MiniboxError as error:
        report(str(error), error.hint or hint_of_limit(error), debug)
        return error.status
    except KeyboardInterrupt:
        return STATUS_INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return STATUS_BROKEN_PIPE
    except OSError as error:
        place = f"{error.filename!r}: " if error.filename else ""
        report(place + kernel_says(error), hint_of_limit(error) or "`minibox --debug ...` shows where", debug)
        return STATUS_FAILED
    except Exception as error:
        if is_shortage(error):
            report("there is not enough memory", "close other programs, or raise the limit that ulimit -v shows", debug)
            return STATUS_FAILED
        words_of_error = f"internal error: {type(error).__name__}: {error}"
        report(words_of_error, "this is a bug in minibox; `minibox --debug ...` shows where", debug)
        return STATUS_FAILED


def _main(words: list[str], given: dict[str, Any], rest: list[str]) -> int:
    status = None if COMPLETE_VARIABLE in os.environ else _without_click(given, rest)
    if status is None:
        from minibox.cli.application import run_click

        status = run_click(words)
    if sys.stdout is not None:
        sys.stdout.flush()
    return status


def _without_click(given: dict[str, Any], rest: list[str]) -> int | None:
    """Run an ordinary command line; return None if click must read it."""
    if rest[:1] in (["run"], ["shell"], ["create"]):
        from minibox.cli.run_options import parse

        options = parse(rest[1:])
        if options is None:
            return None
        from minibox.cli.foreground import create, start

        raise_interrupts()
        settings = make_settings(given, os.environ).claimed()
        return create(options, settings) if rest[0] == "create" else start(rest[0], options, settings)
    if rest[:1] == ["exec"]:
        from minibox.cli import exec_options

        found = exec_options.parse(rest[1:])
        if found is None:
            return None
        from minibox.engine.container.exec import exec_

        raise_interrupts()
        return exec_(make_settings(given, os.environ).claimed().home, *found)
    if rest in ([], ["--help"], ["--version"]):
        return _show(given, rest)
    from minibox.cli.reader import is_plain_path, read

    if not all(is_plain_path(str(given[name])) for name in ("root", "runroot") if name in given):
        return None
    line = read(rest)
    if line is None:
        return None
    command, context, values = line
    context.obj = make_settings(given, os.environ)
    return command.callback(context, **values) or 0


def _show(given: dict[str, Any], rest: list[str]) -> int | None:
    """Show the program's version or help; return None if click must do it."""
    if rest != ["--help"]:
        make_settings(given, os.environ)  # they must be valid
    if rest == ["--version"]:
        from minibox.engine.host.version import version_text

        echo(f"minibox {version_text()}")
        return 0
    from minibox.cli.help import program_help

    text = program_help()
    if text is None:
        return None
    echo(text)
    return 0


def program() -> NoReturn:
    """Run the installed `minibox`: call `main` and exit without the interpreter's clean-up, which takes 1.4 ms."""
    begin()
    end_at_interrupt()
    if why := too_few_descriptors():
        report(why, None, False)
        os._exit(STATUS_FAILED)
    end(main(), failed=STATUS_FAILED)


def _forget_stdout() -> None:
    """Point stdout at /dev/null, so that flushing buffered output doesn't fail again after the reader has left."""
    if sys.stdout is None:
        return
    with closing(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)) as descriptor, suppress(OSError, ValueError):
        os.dup2(descriptor, sys.stdout.fileno())
        sys.stdout.flush()
