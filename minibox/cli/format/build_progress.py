"""Show a build: each line of the Dockerfile with its command's output, told apart by the line's number.

``plain`` looks like BuildKit's. What a terminal shows is in `minibox.cli.format.build_live`.
"""

from __future__ import annotations

import os
from time import monotonic

from minibox.base.json_text import dumps
from minibox.build.events import CACHED, FAILED, ImageMade, LineEnded, LineOutput, LineStarted, Notice
from minibox.cli.format.table import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from minibox.build.events import Event
    from minibox.cli.format.build_live import Live

STYLES = ("auto", "plain", "tty", "rawjson", "quiet")


def shown(style: str, stream: TextIO) -> Quiet | Live:
    """Return what shows a build in one of `STYLES`. ``tty`` is ``plain`` if there is no terminal that can redraw."""
    if style == "quiet":
        return Quiet(stream)
    if style == "rawjson":
        return Json(stream)
    if style == "plain" or not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return Plain(stream)
    from minibox.cli.format.build_live import Live

    return Live(stream)


class Quiet:
    """Shows nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, event: Event) -> None:
        """Show an event."""

    def close(self) -> None:
        """The build has ended."""


class Json(Quiet):
    """One JSON object a line: the event's kind and its fields."""

    def show(self, event: Event) -> None:
        fields = {name: getattr(event, name) for name in type(event).__annotations__}
        if isinstance(event, LineOutput):
            fields["data"] = event.data.decode(errors="replace")
        self._stream.write(dumps({"event": type(event).__name__, **fields}, "") + "\n")
        self._stream.flush()


class Plain(Quiet):
    """Text, line by line."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._began: dict[int, float] = {}
        self._unfinished: dict[int, bytes] = {}  # the beginning of a line of output
        self._last = 0

    def show(self, event: Event) -> None:
        if isinstance(event, LineStarted):
            self._began[event.line] = monotonic()
            self._write(event.line, f"[{event.stage} {event.number}/{event.total}] {printable(event.text)}")
        elif isinstance(event, LineOutput):
            self._output(event)
        elif isinstance(event, LineEnded):
            self._ended(event)
        elif isinstance(event, Notice):
            self._stream.write(f"minibox: {printable(event.text)}\n")
        elif isinstance(event, ImageMade):
            self._stream.write(f"\nimage {event.id}\n" + "".join(f"named {name}\n" for name in event.names))
        self._stream.flush()

    def _output(self, event: LineOutput) -> None:
        *whole, rest = (self._unfinished.get(event.line, b"") + event.data).split(b"\n")
        self._unfinished[event.line] = rest
        passed = monotonic() - self._began[event.line]
        for line in whole:
            self._write(event.line, f"{passed:.3f} {_clean(line)}")

    def _ended(self, event: LineEnded) -> None:
        if rest := self._unfinished.pop(event.line, b""):
            self._write(event.line, f"{monotonic() - self._began[event.line]:.3f} {_clean(rest)}")
        if event.why:
            self._write(event.line, printable(event.why))
        if event.state == CACHED:
            self._write(event.line, "CACHED")
        elif event.state == FAILED:
            self._write(event.line, "ERROR")
        else:
            self._write(event.line, f"DONE {event.seconds:.1f}s")

    def _write(self, number: int, text: str) -> None:
        if self._last not in (0, number):
            self._stream.write("\n")
        self._last = number
        self._stream.write(f"#{number} {text}\n")


def _clean(line: bytes) -> str:
    """A line of output as text: what a carriage return has overwritten is left out."""
    text = line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")
    return "".join(each for each in text if each.isprintable() or each in "\t\x1b")
