"""The output of programs on a terminal, as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.engine.process.terminal_text import plain


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain\n", "plain"),
        ("done\r\n", "done"),
        ("\x1b[1;31merror:\x1b[0m no such file\r\n", "error: no such file"),
        ("\x1b]0;title\x07$ \x1b[?2004hls\r\n", "$ ls"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (" 10%\r 50%\r100%\r\n", "100%"),
        (" 10%\r100%\r", "100%"),
        ("\x1b[2K\x1b[1Gready\x1b(B\x1b[m", "ready"),
        ("mistka\b\bake\n", "mistake"),
        ("\bx\n", "x"),
        ("\x1b[31", "31"),
        ("\tGrüße\n", "\tGrüße"),
    ],
)
def test_what_is_seen(line, shown):
    assert plain(line) == shown


@given(st.text(alphabet="\x1b[]0;mA\b\r\x07\\ "))
def test_nothing_makes_it_stumble(line):
    assert "\b" not in plain(line) and "\r" not in plain(line)
