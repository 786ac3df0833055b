"""The live view of a build: what a terminal shows of it."""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import termios
import unicodedata
from collections.abc import Callable, Iterator

import pytest

from minibox.build.events import CACHED, DONE, FAILED, ImageMade, LineEnded, LineOutput, LineStarted, Notice
from minibox.cli.format.build_live import Live
from minibox.cli.format.build_progress import Plain, shown
from tests.container_box import until


class Screen:
    """A terminal with a screen: it knows what the live view uses, and fails on anything else."""

    def __init__(self, columns: int, rows: int = 24) -> None:
        self.columns = columns
        self._master, slave = os.openpty()
        self.resize(columns, rows)
        settings = termios.tcgetattr(slave)
        settings[1] &= ~termios.OPOST
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        os.set_blocking(self._master, False)
        self.stream = open(slave, "w", encoding="utf-8")
        self._lines, self._row, self._column = [""], 0, 0

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)

    def read(self) -> str:
        """What was written since the last time."""
        data = b""
        try:
            while piece := os.read(self._master, 1 << 16):
                data += piece
        except BlockingIOError:
            pass
        return data.decode()

    def lines(self) -> list[str]:
        """What is on the screen, and above it."""
        for up, erase, new, text in re.findall(r"\x1b\[(\d+)A\r|(\x1b\[J)|(\n)|([^\x1b\n]+)", self.read()):
            if up:
                self._row -= int(up)
                assert self._row >= 0
            elif erase:
                del self._lines[self._row + 1 :]
                self._lines[self._row] = ""
            elif new:
                self._row += 1
                self._lines += [""] * (self._row + 1 - len(self._lines))
            else:
                assert text.isprintable(), repr(text)
                self._lines[self._row] = text
                assert width(text) < self.columns, text
        return self._lines[: self._row]


def width(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(each) in "WF") for each in text)


@pytest.fixture
def screen_of() -> Iterator[Callable[..., tuple[Screen, Live]]]:
    made: list[tuple[Screen, Live]] = []

    def make(columns: int, rows: int = 24) -> tuple[Screen, Live]:
        screen = Screen(columns, rows)
        made.append((screen, Live(screen.stream)))
        return made[-1]

    yield make
    for screen, live in made:
        live.close()
        screen.close()


LONG = "RUN " + "compile " * 40


@pytest.mark.parametrize("columns", [80, 120])
def test_what_runs_stands_below_what_has_ended(columns: int, screen_of: Callable[..., tuple[Screen, Live]]) -> None:
    screen, live = screen_of(columns)
    live.show(LineStarted(1, "app", 1, 3, "FROM base"))
    live.show(LineEnded(1, DONE, 0.0))
    live.show(LineStarted(2, "app", 2, 3, LONG))
    live.show(LineOutput(2, "".join(f"out {number}\n" for number in range(9)).encode() + "漢".encode() * 200))
    until(lambda: len(screen.lines()) == 8)
    found = screen.lines()
    assert found[0].startswith(" => [app 1/3] FROM base ") and found[0].endswith(" 0.0s")
    assert found[1].startswith(" => [app 2/3] RUN compile compile") and re.search(r"\.\.\. \d+\.\ds$", found[1])
    assert found[2:6] == [f" => => out {number}" for number in range(5, 9)]
    assert found[6].startswith(" => => 漢漢") and found[6].endswith("...")
    assert re.fullmatch(r"\[\+\] building \d+\.\ds \(1/3\)", found[7])
    assert len(found[0]) == len(found[1]) == columns - 1
    live.show(LineEnded(2, DONE, 12.34))
    live.show(LineStarted(3, "app", 3, 3, "COPY a /"))
    live.show(LineEnded(3, CACHED, 0.0, "reused from x:1"))
    live.show(Notice("something"))
    live.show(ImageMade("sha256:1", "sha256:2", ("name",)))
    found = screen.lines()
    assert found[1].endswith(" 12.3s") and found[2].startswith(" => CACHED [app 3/3] COPY a /")
    assert found[3:5] == [" => => reused from x:1", "minibox: something"]
    assert re.fullmatch(r"\[\+\] built 3 lines, 1 cached in \d+\.\ds", found[5])
    assert found[6:] == ["image sha256:1", "named name"]


def test_a_failure_leaves_the_terminal_to_its_error(screen_of: Callable[..., tuple[Screen, Live]]) -> None:
    screen, live = screen_of(80)
    live.show(LineStarted(1, "a", 1, 2, "RUN false"))
    live.show(LineStarted(2, "b", 1, 2, "RUN sleep"))
    until(lambda: len(screen.lines()) == 3)
    live.show(LineEnded(1, FAILED, 1.0))
    assert [line[:16] for line in screen.lines()] == [" => ERROR [a 1/2"]
    live.close()
    assert len(screen.lines()) == 1


def test_output_can_not_move_the_cursor(screen_of: Callable[..., tuple[Screen, Live]]) -> None:
    screen, live = screen_of(80)
    live.show(LineStarted(1, "a", 1, 1, "RUN \x1b[2Jx"))
    live.show(LineOutput(1, b"\x1b[31mred\x1b[0m\n\x1b]0;title\x07tab\tx\n10%\r20%\r\n\x1b[5A\x1b(B\x00up\xff"))
    until(lambda: len(screen.lines()) == 6)
    assert [line[7:] for line in screen.lines()[1:5]] == ["red", "tab     x", "20%", "up\ufffd"]
    assert "\\x1b[2Jx" in screen.lines()[0]


def test_it_is_never_higher_than_the_terminal(screen_of: Callable[..., tuple[Screen, Live]]) -> None:
    screen, live = screen_of(80, 8)
    for number in range(1, 20):
        live.show(LineStarted(number, f"s{number}", 1, 1, "RUN x"))
        live.show(LineOutput(number, b"1\n2\n3\n4\n"))
    until(lambda: screen.lines())
    assert 0 < len(screen.lines()) < 8


def test_a_terminal_that_became_narrower_is_redrawn_whole(screen_of: Callable[..., tuple[Screen, Live]]) -> None:
    screen, live = screen_of(120)
    live.show(LineStarted(1, "a", 1, 1, LONG))
    until(lambda: len(screen.lines()) == 2)
    live.show(LineEnded(1, FAILED, 0.0))  # nothing is drawn by itself any more
    live.show(LineStarted(2, "a", 1, 1, "RUN"))
    assert erased_lines(screen, live, [119, 20], 60) == 3
    assert erased_lines(screen, live, [119, 20], 40) == 4


def erased_lines(screen: Screen, live: Live, drawn: list[int], columns: int) -> int:
    """How many lines of the screen it takes back if it had drawn lines of these widths before a change of size."""
    screen.lines()
    screen.resize(columns, 24)
    live._drawn = drawn
    live.show(Notice("x"))
    return int(re.findall(r"\x1b\[(\d+)A", screen.read())[0])


def test_without_a_terminal_it_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(shown("tty", io.StringIO()), Plain)
    screen = Screen(80)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(shown("auto", screen.stream), Plain)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(shown("plain", screen.stream), Plain)
    assert isinstance(shown("auto", screen.stream), Live)
    screen.close()
