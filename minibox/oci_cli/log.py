"""The log, in the two formats of logrus that engines parse. conmon reads standard error, containerd's shim ``--log``."""

from __future__ import annotations

import os
import sys

from minibox.base.files import closing
from minibox.errors import kernel_says, suppress


class Log:
    """Standard error, or the file of ``--log``.

    Attributes:
        path: the file; "" for standard error.
        form: text or json.
        debug: write debug messages, too.
    """

    def __init__(self, path: str = "", form: str = "text", *, debug: bool = False) -> None:
        self.path, self.form, self.debug = path, form, debug

    def write(self, level: str, message: str, hint: str | None = None) -> None:
        """Append one line."""
        if level == "debug" and not self.debug:
            return
        fields = {"level": level, "msg": message, **({"hint": hint} if hint else {})}
        line = (json_line if self.form == "json" else text_line)(fields, _now())
        if self.path:
            try:
                with closing(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)) as fd:
                    os.write(fd, line.encode(errors="surrogateescape"))
            except OSError as error:
                _to_stderr(f"open the log {self.path}: {kernel_says(error)}\n")
        if not self.path:
            _to_stderr(line)
        elif level == "error":
            _to_stderr(message + "\n")


def json_line(fields: dict[str, str], now: str) -> str:
    """Format a line like logrus's JSONFormatter, with sorted keys."""
    from minibox.base.go_json import text

    return text(dict(sorted({**fields, "time": now}.items()))) + "\n"


def text_line(fields: dict[str, str], now: str) -> str:
    """Format a line like logrus's TextFormatter without a terminal: time, level and message, then the rest."""
    from minibox.base.json_text import quoted

    words = [f"{key}={value if _is_bare(value) else quoted(value)}" for key, value in fields.items()]
    return f'time="{now}" {" ".join(words)}\n'


def _is_bare(value: str) -> bool:
    return value.isascii() and all(character.isalnum() or character in "-._/@^+" for character in value)


def _now() -> str:
    from time import gmtime, strftime

    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime())


def _to_stderr(text: str) -> None:
    with suppress(AttributeError, OSError, ValueError):  # there is no other way to report it
        sys.stderr.write(text)
        sys.stderr.flush()
