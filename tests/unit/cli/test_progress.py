"""What a pull or a push shows while it goes on: bars on a terminal, elsewhere a line for each state."""

from __future__ import annotations

import io

import pytest

from minibox.cli.format.progress import Shown
from minibox.image.progress import DOWNLOADED, DOWNLOADING, EXISTS, EXTRACTING, PULLED, PULLING, RETRYING, Progress

DIGEST = "sha256:" + "0123456789ab" + "c" * 52
MIB = 1 << 20
EVENTS = [
    Progress(DIGEST, PULLING, 0, 10 * MIB),
    Progress(DIGEST, DOWNLOADING, 5 * MIB, 10 * MIB),
    Progress(DIGEST, RETRYING, 5 * MIB, 10 * MIB, "it \x1b[2J broke off"),
    Progress(DIGEST, DOWNLOADING, 10 * MIB, 10 * MIB),
    Progress(DIGEST, DOWNLOADED, 10 * MIB, 10 * MIB),
    Progress(DIGEST, EXTRACTING),
    Progress(DIGEST, PULLED),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_a_line_for_each_state():
    file = io.StringIO()
    with Shown(file) as shown:
        shown.begin()
        for event in EVENTS:
            shown.show(event)
    assert file.getvalue().splitlines() == [
        f"0123456789ab: {said}"
        for said in (PULLING, r"Retrying it \x1b[2J broke off", DOWNLOADED, PULLED)
    ]  # fmt: skip


def test_a_terminal_gets_a_bar_for_each_blob(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    there = [Progress(DIGEST, EXISTS, 10 * MIB, 10 * MIB)]
    for events, said in (
        (EVENTS[:2], ("Downloading", "5.2/10.5 MB")), (EVENTS, ("Pull complete", "10.5/10.5 MB")),
        (there, ("Already exists", "10.5/10.5 MB")),
    ):  # fmt: skip
        terminal = Terminal()
        with Shown(terminal) as shown:
            shown.begin()
            for event in events:
                shown.show(event)
        last = next(line for line in reversed(terminal.getvalue().splitlines()) if "0123456789ab" in line)
        assert all(each in last for each in said), last
        assert "\x1b[2J" not in terminal.getvalue()


def test_nobody_is_told_without_a_stream_or_before_it_begins():
    file = io.StringIO()
    for stream in (None, file):
        with Shown(stream) as shown:
            shown.show(EVENTS[0])
    assert file.getvalue() == ""
