"""The map of the package in CONTRIBUTING.md is the one that the folders give."""

from __future__ import annotations

import ast

from tools.map import CHECKOUT, PAGE, with_map

FOLDERS = sorted(path.parent for path in (CHECKOUT / "minibox").rglob("__init__.py"))


def test_the_map_is_todays() -> None:
    page = PAGE.read_text()
    assert page == with_map(page), "run `make map`"


def test_each_folder_says_what_belongs_there() -> None:
    silent = [str(each) for each in FOLDERS if not ast.get_docstring(ast.parse((each / "__init__.py").read_text()))]
    assert silent == []


def test_no_folder_is_crowded() -> None:
    """Past about twenty modules nobody finds the one he wants: look for a second noun."""
    counts = {str(each): sum(path.stem != "__init__" for path in each.glob("*.py")) for each in FOLDERS}
    assert {folder: count for folder, count in counts.items() if count > 22} == {}
