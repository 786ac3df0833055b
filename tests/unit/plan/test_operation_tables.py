"""An operation of the children stands in five places, which agree: the interpreter's table, its C, constructors, words, commands."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from minibox.linux.process import signatures
from minibox.plan import operations, parent
from minibox.plan.explain import WORDS
from minibox.plan.shell import AT_EXEC, COMMANDS, IMPLIED, NO_COMMAND

KINDS = {name: kinds for name, (_, kinds) in signatures().items()}


def constructed() -> Iterator[tuple[str, ast.expr]]:
    """Names and arguments of the operations that the constructors make."""
    for node in ast.walk(ast.parse(Path(operations.__file__).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Op":
            name = node.args[0]
            names = [name.body, name.orelse] if isinstance(name, ast.IfExp) else [name]
            for each in names:
                if isinstance(each, ast.Constant) and isinstance(each.value, str):  # else a copy of another
                    yield each.value, node.args[1]


def test_each_has_a_constructor() -> None:
    assert {name for name, _ in constructed()} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_constructor_gives_all_arguments(name: str) -> None:
    counts = {
        len(arguments.elts)
        for each, arguments in constructed()
        if each == name
        and isinstance(arguments, ast.Tuple)
        and not any(isinstance(e, ast.Starred) for e in arguments.elts)
    }
    assert counts <= {len(KINDS[name])}


def test_each_has_words() -> None:
    assert set(WORDS) == set(KINDS) | set(parent.OPERATIONS)


@pytest.mark.parametrize("name", KINDS)
def test_each_argument_has_a_name(name: str) -> None:
    does, manual, names = WORDS[name]
    assert len(names.split()) == len(KINDS[name])
    does.format(**dict.fromkeys([*names.split(), "path", "slot", "tag"], "x"))
    assert manual.endswith(")")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_all_arguments(name: str) -> None:
    assert len(inspect.signature(COMMANDS[name]).parameters) == len(WORDS[name][2].split())


def test_a_script_knows_no_others() -> None:
    assert {*AT_EXEC, *IMPLIED, *NO_COMMAND} - set(WORDS) == set()
