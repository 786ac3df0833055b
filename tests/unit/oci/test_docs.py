"""docs/oci.md has every property of config.json, and each test that it names is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

from minibox.oci.runtime import Spec
from minibox.plan.mounts import option_names

TESTS = Path(__file__).parents[2]
DOCUMENT, _, DIFFERENCES = (TESTS.parent / "docs/oci.md").read_text().partition("## Where it differs from runc")
ROWS = [row.split(" | ") for row in DOCUMENT.splitlines() if row.startswith("| ")]


def properties(kind: Any, path: str = "") -> Iterator[str]:
    """Paths of all that have no properties of their own."""
    if get_origin(kind) is NotRequired:
        yield from properties(get_args(kind)[0], path)
    elif is_typeddict(kind):
        for name, hint in get_type_hints(kind, include_extras=True).items():
            yield from properties(hint, f"{path}.{name}" if path else name)
    elif get_origin(kind) is list and is_typeddict(get_args(kind)[0]):
        yield from properties(get_args(kind)[0], f"{path}[]")
    elif get_origin(kind) is dict and is_typeddict(get_args(kind)[1]):
        yield from properties(get_args(kind)[1], f"{path}{{}}")
    else:
        yield path


def words(column: int) -> set[str]:
    return {word for row in ROWS if len(row) > column for word in re.findall(r"`([^`]+)`", row[column])}


def test_every_property_is_in_the_table():
    listed = {word.removesuffix("{}") for word in words(0)}
    assert set(properties(Spec)) - listed == set()


def test_every_mount_option_is_in_the_table():
    listed = words(0)
    assert {name for name in option_names() if name not in listed and name.removeprefix("r") not in listed} == set()


def test_the_tests_that_it_names_are_there():
    named = words(2)
    assert len(named) > 50
    for name in named:
        file, _, function = name.partition("::")
        assert re.search(rf"^def {function}\(", (TESTS / file).read_text(), re.MULTILINE), name


def test_every_difference_has_four_columns():
    rows = [row for row in DIFFERENCES.splitlines() if row.startswith("| ")]
    assert len(rows) > 15 and {row.count(" | ") for row in rows} == {3}


def test_the_files_that_it_names_are_there():
    files = {word for word in words(1) if word.endswith(".py")}
    assert files and all((TESTS.parent / "minibox" / file).is_file() for file in files)
