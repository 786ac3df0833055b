"""The entry point of the command line.

``run``, ``shell`` and ``exec`` go straight to the engine if `run_options` understands their options. Everything
else goes through click (`cli.application`), which is imported only then.
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
from minibox.cli.messages import report, warn
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
    if rest[:1] in (["run"], ["shell"]) and COMPLETE_VARIABLE not in os.environ:
        from minibox.cli.run_options import parse

        options = parse(rest[1:])
        if options is not None:
            from minibox.cli.foreground import start

            raise_interrupts()
            return start(rest[0], options, make_settings(given, os.environ).claimed())
    if rest[:1] == ["exec"] and COMPLETE_VARIABLE not in os.environ:
        from minibox.cli import exec_options

        if read := exec_options.parse(rest[1:]):
            from minibox.engine.container.exec import exec_

            raise_interrupts()
            settings = make_settings(given, os.environ).claimed()
            return exec_(settings.home, *read)
    from minibox.cli.application import run_click

    status = run_click(words)
    if sys.stdout is not None:
        sys.stdout.flush()
    return status


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
