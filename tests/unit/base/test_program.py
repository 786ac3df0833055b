"""The finder of our programs for minibox's own modules: it finds what Python's own does."""

from __future__ import annotations

import pkgutil
from importlib.machinery import PathFinder, SourceFileLoader

import pytest

import minibox
from minibox.base import program
from minibox.base.program import OwnModules

MODULES = [each.name for each in pkgutil.walk_packages(minibox.__path__, "minibox.", onerror=lambda name: None)]


def path_of(name: str) -> list[str]:
    return [f"{minibox.__path__[0]}/{'/'.join(name.split('.')[1:-1])}".rstrip("/")]


def test_it_finds_each_module_where_python_does(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(program, "_Loader", SourceFileLoader)  # pytest loads the modules of its plugins itself
    assert len(MODULES) > 300
    for name in MODULES:
        ours, theirs = OwnModules.find_spec(name, path_of(name)), PathFinder.find_spec(name, path_of(name))
        assert theirs
        if theirs.origin and theirs.origin.endswith(".so"):
            assert ours is None
            continue
        assert ours
        assert (ours.origin, ours.cached, ours.submodule_search_locations, ours.has_location) == (
            theirs.origin, theirs.cached, theirs.submodule_search_locations, theirs.has_location,
        )  # fmt: skip
        assert type(ours.loader) is type(theirs.loader) and ours.parent == theirs.parent


@pytest.mark.parametrize("name", ["os", "minibox", "miniboxes.base", "minibox.no_such_module", "minibox._native"])
def test_what_is_not_ours_or_not_python_is_left_to_python(name: str):
    assert OwnModules.find_spec(name, None if "." not in name else minibox.__path__) is None
