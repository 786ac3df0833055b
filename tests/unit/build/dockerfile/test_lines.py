"""Lines of a Dockerfile: directives, comments, continuations, and where each piece stands."""

from __future__ import annotations

import pytest

from minibox.build.dockerfile.lines import Span
from minibox.build.dockerfile.parser import parse


def texts(dockerfile: str) -> list[str]:
    """The instructions after FROM, each in one line."""
    return [instruction.text for instruction in parse(f"FROM a\n{dockerfile}").instructions[1:]]


@pytest.mark.parametrize(
    ("dockerfile", "lines"),
    [
        ("RUN a \\\n b", ["RUN a  b"]),
        ("RUN a \\  \t\n b", ["RUN a  b"]),  # blanks may follow the escape
        ("RUN a\\\nb", ["RUN ab"]),
        ("RUN a \\\\\nRUN b", ["RUN a \\\\", "RUN b"]),  # an escaped escape continues nothing
        ("RUN a \\\n\n\n b", ["RUN a  b"]),
        ("RUN a \\\n# comment\n   # comment\n b", ["RUN a  b"]),
        ("RUN a \\\n# comment \\\n b", ["RUN a  b"]),
        ("RUN a # b", ["RUN a # b"]),
        ("RUN a \\\n b # c \\\n d", ["RUN a  b # c  d"]),
        ("RUN a \\", ["RUN a "]),
        ("\\\nRUN a", ["RUN a"]),
        ("  RUN a\n\tRUN b\n\n\n# c\nRUN c", ["RUN a", "RUN b", "RUN c"]),
        ("RUN a \\\r\n b\r\nRUN c\r\n", ["RUN a  b", "RUN c"]),
        ("RUN a\fb\vc", ["RUN a\fb\vc"]),
    ],
)
def test_lines(dockerfile, lines):
    assert texts(dockerfile) == lines


@pytest.mark.parametrize(
    ("head", "directives"),
    [
        ("# syntax=docker/dockerfile:1", {"syntax": "docker/dockerfile:1"}),
        ("#syntax = a b \n# Escape=`\n# check=skip=all;error=true", {"syntax": "a b", "escape": "`",
                                                                    "check": "skip=all;error=true"}),
        ("# a comment\n# escape=`", {}),
        ("\n# escape=`", {}),
        ("# unknown=x\n# escape=`", {}),
        ("#!/usr/bin/env build\n# escape=`", {"escape": "`"}),
        ("# escape=`\n\n# syntax=x", {"escape": "`"}),
    ],
)  # fmt: skip
def test_directives(head, directives):
    assert dict(parse(f"{head}\nFROM a").directives) == directives


def test_the_escape_character_can_be_changed():
    dockerfile = parse("# escape=`\nFROM a\nENV A=c:\\ `\n B=c:\\d")
    assert dockerfile.escape == "`"
    assert dockerfile.instructions[1].text == "ENV A=c:\\  B=c:\\d"


def test_a_byte_order_mark_and_bytes_that_are_no_text():
    instructions = parse(b"\xef\xbb\xbfFROM a\nENV A=\xff\nRUN <<E\n\xfe\nE\n").instructions
    assert instructions[1].text.encode("utf-8", "surrogateescape") == b"ENV A=\xff"


def test_where_the_pieces_stand():
    line = parse("FROM a\n  RUN one \\\n# comment\n    two \\\n\n three").instructions[1].line
    assert line.span == Span(2, 6)
    assert [line.find(word) for word in ("RUN", "one", "two", "three")] == [(2, 3), (2, 7), (4, 5), (6, 2)]
    assert line.empty == (5,)


def test_heredocs_belong_to_their_instruction():
    spans = [each.span for each in parse("FROM a\nRUN <<A <<B\n1\nA\n2\nB\nCMD x").instructions]
    assert spans == [Span(1, 1), Span(2, 6), Span(7, 7)]


def test_comments_right_before_an_instruction():
    instructions = parse("# one\n\n# two\n# three\nFROM a\n# x\n#\n# four\nRUN b").instructions
    assert [each.line.comments for each in instructions] == [("two", "three"), ("four",)]
