"""Who may import what: the direction is import-linter's; circles of modules and the doors of heavy libraries are held here."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from minibox.cli import tree as cli
from minibox.oci_cli import commands as oci_cli

PACKAGE = Path(__file__).resolve().parents[2] / "minibox"

# Library -> the sub-packages that may import it.
DOORS = {
    "click": {"cli"},
    "pyroute2": {"network"},
    "cffi": set(),
    "minibox._native": {"linux"},
    "minibox._seccomp": {"linux"},
}
HEAVY = {"pyroute2", "rich", "asyncio", "ssl"}


def imports(path: Path) -> Iterator[str]:
    """Full names of what a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("library", DOORS)
def test_only_its_own_part_imports(library: str) -> None:
    strangers = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for name in imports(path)
        if f"{name}.".startswith(f"{library}.")
        and path.name not in ("_seccomp.py", "solution.py")  # a solution of a lab is a student's program
        and path.relative_to(PACKAGE).parts[0] not in DOORS[library]
    ]
    assert strangers == []


def imported_modules() -> dict[str, set[str]]:
    """What each module of ours imports of ours, wherever in it: in a function, for type checkers, by the name in a table, too."""
    paths = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    found = {
        module: {name if name in paths else name.rpartition(".")[0] for name in imports(path)} & paths.keys()
        for module, path in paths.items()
    }
    found["minibox.cli.tree"] |= {f"minibox.cli.{module}" for _, _, module, *_ in cli.COMMANDS if module}
    found["minibox.oci_cli.main"] |= {f"minibox.oci_cli.{each.module}" for each in oci_cli.COMMANDS if each.module}
    return {module: names - {module} for module, names in found.items()}


def test_no_circle_of_imports() -> None:
    try:
        TopologicalSorter(imported_modules()).prepare()
    except CycleError as error:
        pytest.fail(" imports\n".join(reversed(error.args[1])), pytrace=False)


def test_imports_are_absolute() -> None:
    relative = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def loaded_by(*arguments: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded at its end."""
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True)
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines}


def test_import_minibox_is_light() -> None:
    assert not HEAVY & loaded_by("-c", "import minibox")


def test_help_is_light() -> None:
    assert not HEAVY & loaded_by("-m", "minibox", "--help")


def test_nothing_that_words_an_end_is_on_the_way_to_a_start() -> None:
    loaded = loaded_by("-c", "import minibox.engine.container.foreground_run")
    assert not {"re", "signal", "minibox.engine.verdict.cause", "minibox.engine.verdict.failure_hints"} & loaded
