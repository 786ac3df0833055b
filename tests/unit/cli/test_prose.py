"""Texts fit the terminal."""

from __future__ import annotations

import pytest

from minibox.cli.format.prose import fill
from minibox.lab.catalog import labs, parts

TEXT = """# A title that is longer than the width

A paragraph of
some short lines.

1. an item that goes
   on;
2. another one
- and `one` more

| a | table | stays |
| --- | --- | --- |"""
FILLED = """# A title that is longer than the width

A paragraph of some
short lines.

1. an item that goes
   on;
2. another one
- and `one` more

| a | table | stays |
| --- | --- | --- |"""


def test_paragraphs_and_items_are_filled_and_all_else_stays() -> None:
    assert fill(TEXT, 20) == FILLED
    assert fill("", 20) == "" and fill("a\n\nb", 20) == "a\n\nb"


@pytest.mark.parametrize("lab", [*labs(), *parts()], ids=lambda lab: lab.name)
def test_no_word_of_a_lab_is_lost(lab) -> None:
    for text in (lab.text("theory.md"), lab.text("task.md"), *lab.hints()):
        filled = fill(text, 80)
        assert filled.split() == text.split()
        assert all(len(line) <= 80 or line.startswith("|") or len(line.split()) == 1 for line in filled.splitlines())
