"""What of the host a sandboxed function gets to see."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minibox.api import interpreter


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The paths that are mounted for a search path; the home is ``tmp_path/home/ann``."""
    home = tmp_path / "home" / "ann"
    (home / "project").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))

    def seen(*entries: Path | str) -> dict[str, str]:
        monkeypatch.setattr(sys, "path", [*map(str, entries)])
        return {source: options for source, _, options in interpreter.mounts()}

    return seen


def test_a_directory_of_modules_is_seen_and_its_parents_are_not(seen: Any, tmp_path: Path) -> None:
    project = tmp_path / "home" / "ann" / "project"
    found = seen(project, project / "below", tmp_path / "nothing")
    assert str(project) in found
    assert not {str(tmp_path), str(project.parent), str(project / "below"), "/", "/home", "/root", "/tmp"} & set(found)


@pytest.mark.parametrize("place", ["", "..", "../..", "/", "/etc", "/tmp"])
def test_of_a_place_that_holds_more_the_imported_modules_are_seen(
    seen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    directory = (tmp_path / "home" / "ann" / place).resolve()
    for name, package in (("one_of_mine", False), ("two_of_mine", True)):
        module: Any = ModuleType(name)
        module.__file__ = str(directory / name / "__init__.py" if package else directory / f"{name}.py")
        if package:
            module.__path__ = [str(directory / name)]
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(os.path, "exists", lambda path: "of_mine" in str(path) or os.access(path, os.F_OK))
    found = seen(directory)
    assert str(directory) not in found
    assert {str(directory / "one_of_mine.py"), str(directory / "two_of_mine")} <= set(found)


def test_what_is_not_for_all_is_id_mapped(seen: Any, tmp_path: Path) -> None:
    project = tmp_path / "home" / "ann" / "project"
    project.chmod(0o755)
    assert seen(project)[str(project)] == "ro,noidmap"
    project.chmod(0o700)
    assert seen(project)[str(project)] == "ro"


def test_what_the_system_has_is_seen_once(seen: Any) -> None:
    found = seen("/usr/lib/python3/dist-packages")
    assert found["/usr"] == "ro,noidmap" and "/usr/lib/python3/dist-packages" not in found
    assert "/etc/shadow" not in found and "/etc" not in found
