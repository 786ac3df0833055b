"""Show a build on a terminal: what has ended scrolls by, and below it stands what is running, redrawn in place.

Each running line has its time and the last lines of its output. Nothing is drawn more often than ten times a second.
"""

from __future__ import annotations

import os
import re
from collections import deque
from threading import Event as Signal
from threading import Lock, Thread
from time import monotonic
from unicodedata import combining, east_asian_width

from minibox.build.events import CACHED, FAILED, ImageMade, LineEnded, LineOutput, LineStarted, Notice
from minibox.cli.format.table import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from minibox.build.events import Event

INTERVAL_S = 0.1
OUTPUT_LINES = 5
UNFINISHED_BYTES_MAX = 4096
TAB_COLUMNS = 8
#: What a terminal obeys: ECMA-48 control sequences, operating system commands, and two-character escapes.
ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")


class _Running:
    """A line that is being carried out."""

    def __init__(self, event: LineStarted) -> None:
        self.title = f"[{event.stage} {event.number}/{event.total}] {printable(event.text)}"
        self.began = monotonic()
        self._last: deque[bytes] = deque(maxlen=OUTPUT_LINES)
        self._unfinished = b""

    def add(self, data: bytes) -> None:
        *whole, rest = (self._unfinished + data).split(b"\n")
        self._last.extend(whole)
        self._unfinished = rest[-UNFINISHED_BYTES_MAX:]

    def output(self, count: int) -> list[str]:
        """The last lines of output as text, without what a terminal would obey."""
        shown = [text for each in (*self._last, self._unfinished) if (text := _text(each))]
        return shown[-count:] if count > 0 else []


class Live:
    """Shows a build on a terminal. Call `close` at the end, whatever happened."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lock, self._stop = stream, Lock(), Signal()
        self._running: dict[int, _Running] = {}
        self._totals: dict[str, int] = {}
        self._began, self._done, self._cached = monotonic(), 0, 0
        self._drawn: list[int] = []  # the widths of the lines on the screen that `_draw` replaces
        self._ticker: Thread | None = None

    def show(self, event: Event) -> None:
        """Show an event."""
        with self._lock:
            if isinstance(event, LineStarted):
                if self._ticker is None and not self._stop.is_set():
                    self._ticker = Thread(target=self._tick, name="build progress", daemon=True)
                    self._ticker.start()
                self._running[event.line] = _Running(event)
                self._totals[event.stage] = event.total
            elif isinstance(event, LineOutput):
                if running := self._running.get(event.line):
                    running.add(event.data)
            elif isinstance(event, LineEnded):
                self._ended(event)
            elif isinstance(event, Notice):
                self._draw(f"minibox: {printable(event.text)}\n")
            elif isinstance(event, ImageMade):
                self._stop.set()
                cached = f", {self._cached} cached" if self._cached else ""
                text = f"[+] built {self._done} lines{cached} in {monotonic() - self._began:.1f}s\n"
                self._draw(f"{text}image {event.id}\n" + "".join(f"named {name}\n" for name in event.names))

    def close(self) -> None:
        """Stop drawing; what is running goes from the screen."""
        self._stop.set()
        if self._ticker:
            self._ticker.join()
            self._ticker = None
        with self._lock:
            self._draw("")

    def _ended(self, event: LineEnded) -> None:
        running = self._running.pop(event.line)
        self._done += 1
        self._cached += event.state == CACHED
        mark = "ERROR " if event.state == FAILED else "CACHED " if event.state == CACHED else ""
        if event.state == FAILED:
            self._stop.set()  # the build ends; a shell or the error needs the terminal
        text = _row(f" => {mark}{running.title}", event.seconds, os.get_terminal_size(self._stream.fileno()).columns)
        why = "".join(f" => => {printable(each)}\n" for each in event.why.split("; ") if each)
        self._draw(f"{text}\n{why}")

    def _tick(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            with self._lock:
                self._draw("")

    def _draw(self, text: str) -> None:
        """Write text for good, and below it what is running now."""
        columns, rows = os.get_terminal_size(self._stream.fileno())
        columns, rows = columns or 80, rows or 24
        # A terminal that has become narrower has broken the lines.
        height = sum(max(1, -(-width // columns)) for width in self._drawn)
        erase = f"\x1b[{height}A\r\x1b[J" if height else ""
        frame = [] if self._stop.is_set() else self._frame(columns, rows)
        self._drawn = [_width(each) for each in frame]
        if erase or text or frame:
            self._stream.write(erase + text + "".join(f"{each}\n" for each in frame))
            self._stream.flush()

    def _frame(self, columns: int, rows: int) -> list[str]:
        """The lines to show now: never more than the terminal has."""
        now = monotonic()
        running = list(self._running.values())[: max(1, rows - 3)]
        output_lines = min(OUTPUT_LINES, (rows - 2 - len(running)) // max(1, len(running)))
        frame = []
        for each in running:
            frame.append(_row(f" => {each.title}", now - each.began, columns))
            frame += [_cut(f" => => {line}", columns - 1) for line in each.output(output_lines)]
        total = sum(self._totals.values())
        return [*frame, _cut(f"[+] building {now - self._began:.1f}s ({self._done}/{total})", columns - 1)]


def _row(text: str, seconds: float, columns: int) -> str:
    """A line with its time at the right edge."""
    time = f"{seconds:.1f}s"
    room = columns - len(time) - 2
    text = _cut(text, room)
    return f"{text}{' ' * (room - _width(text))} {time}"


def _width(text: str) -> int:
    """How many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(each) else 1 + (east_asian_width(each) in "WF") for each in text)


def _cut(text: str, columns: int) -> str:
    """The beginning of a text that is too long, with dots."""
    if _width(text) <= columns:
        return text
    while text and _width(text) > max(0, columns - 3):
        text = text[: max(len(text) - 1, 0) if len(text) <= columns else columns]
    return text + "..."[: max(0, columns)]


def _text(line: bytes) -> str:
    """A line of output: what a carriage return has overwritten is left out."""
    shown = ESCAPE.sub(b"", line).rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace").expandtabs(TAB_COLUMNS)
    return "".join(each for each in shown if each.isprintable()).rstrip()
