"""The reader without click gives what click gives, for each command, or leaves the line to click."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minibox.base.home import Home
from minibox.cli.application import run_click
from minibox.cli.clicked import clicked
from minibox.cli.declare import Command, Parameter, argument, command, option
from minibox.cli.help import program_help
from minibox.cli.main import main
from minibox.cli.reader import read, read_values
from minibox.cli.settings import Settings
from minibox.cli.tree import COMMANDS, GROUPS, load
from minibox.errors import UsageError


def declared() -> Iterator[tuple[str, tuple[str, str, str, str, str]]]:
    for row in COMMANDS:
        rows = [(f"{row[1]} {each[1]}", each) for each in GROUPS[row[3]]] if not row[2] else [(row[1], row)]
        yield from (each for each in rows if each[1][2] and isinstance(load(each[1]), Command))


LINES = dict(declared())
#: All options that there are, of one command and at once.
WORDS = {
    "text": ["x", "a=b", "", "-", "--", "-x", "--rm", "=", "a b", "é"],
    "int": ["5", "0", "-1", "-2", "1_0", " 7", "x", "", "+3", "99999999999999999999", "٣"],
    "bool": ["true", "false", "yes", "0", "maybe", ""],
    "truth": ["true", "=false", "0", "maybe"],
    "path": ["/tmp", "/nonexistent/x", "-", "", "a\0b"],
    "flag": ["true", "false", ""],
}


def values_of(each: Parameter) -> list[str]:
    return [*each.choices, "other", ""] if each.kind == "choice" else WORDS[each.kind]


def spellings(each: Parameter) -> Iterator[list[str]]:
    """The ways to write one option."""
    for name in (*each.opts, *each.secondary_opts):
        if each.kind == "flag":
            yield [name]
        for value in values_of(each):
            yield [f"{name}={value}"]
            yield [name, value]
            yield [f"{name}{value}"]


of_click = lru_cache(clicked)


def by_click(found: Command, words: list[str]) -> dict[str, Any] | None:
    """What click calls the command with; None if it is an error, or help."""
    try:
        with of_click(found).make_context("name", list(words), obj=Settings(Home("/root", "/run"))) as context:
            return context.params
    except (click.ClickException, click.exceptions.Exit, UsageError):
        return None


def arguments(found: Command) -> list[str]:
    return [each.choices[0] if each.choices else each.name for each in found.params if not each.is_option]


@pytest.mark.parametrize("line", LINES)
def test_each_option_in_each_spelling(line: str) -> None:
    found = load(LINES[line])
    after = arguments(found)
    for each in found.params:
        if not each.is_option:
            continue
        for words in spellings(each):
            for whole in ([*words, *after], [*after, *words], [*words, *words, *after]):
                answer = read_values(found, whole)
                assert answer is None or answer == by_click(found, whole), whole


@pytest.mark.parametrize("line", LINES)
def test_each_ordinary_option_is_read_without_click(line: str) -> None:
    found = load(LINES[line])
    if found.needs_click or not found.interspersed:
        assert read_values(found, arguments(found)) is None
        return
    after = arguments(found)
    assert inspect.signature(found.callback).bind(object(), **(read_values(found, after) or {}))
    good = {"text": "x", "int": "5", "bool": "true", "path": "/nonexistent/x"}
    for each in found.params:
        if not each.is_option or each.callback or each.kind == "truth":
            continue
        value = each.choices[0] if each.choices else good.get(each.kind, "")
        for name in (*each.opts, *each.secondary_opts):
            words = [[name]] if each.kind == "flag" else [[name, value], [f"{name}{'=' * (name[:2] == '--')}{value}"]]
            for written in words:
                answer = read_values(found, [*written, *after])
                assert answer and answer == by_click(found, [*written, *after])


@command()
@option("-a", "--all", "everything", is_flag=True)
@option("-b", "b", is_flag=True)
@option("-c/-C", "--colour/--no-colour", default=True)
@option("-n", "--number", kind="int", default=-1)
@option("-l", "--least", kind="int", least=-1)
@option("-e", "--env", multiple=True)
@option("-f", "--form", default="")
@option("--sort", choices=["up", "down"], default="up")
@option("--proxy", kind="bool", default=True)
@option("-o", "--output", kind="path")
@argument("first", required=False)
@argument("second", default="none")
@argument("rest", nargs=-1)
def everything(ctx: object, **given: object) -> None: ...


loose = st.sampled_from(
    "x - -- -a -ab -abx -an5 -n -n=5 -e -eA=b --env --env=A=b --all --al --no-colour -C --help -é".split()
)
lines = st.lists(
    loose
    | st.text("-abcCnlef=x1 ", max_size=6)
    | st.sampled_from([word for each in everything.params if each.is_option for word in each.opts])
    | st.sampled_from([word for words in WORDS.values() for word in words]),
    max_size=8,
)


@given(lines)
@example(["--no-colour"])
@example(["-C"])
def test_any_line(words: list[str]) -> None:
    answer = read_values(everything, words)
    assert answer is None or answer == by_click(everything, words)


@pytest.mark.parametrize(
    ("words", "command_name", "parents"),
    [
        (["ps", "-a"], "ps", ["minibox"]),
        (["container", "ls"], "ps", ["container", "minibox"]),
        (["image", "prune", "-f"], "prune", ["image", "minibox"]),
    ],
)
def test_the_way_through_the_tree(words: list[str], command_name: str, parents: list[str]) -> None:
    found = read(words)
    assert found
    declared, line, _ = found
    assert (declared.name, line.info_name) == (command_name, words[len(parents) - 1])
    above, names = line.parent, []
    while above:
        names.append(above.info_name)
        above = above.parent
    assert names == parents


@pytest.mark.parametrize(
    "words",
    [[], ["image"], ["nothing"], ["image", "nothing"], ["--help"], ["ps", "--help"], ["ps", "x"], ["rm", "--none", "x"],
     ["try", "true"], ["update", "-m", "5m", "x"], ["explain", "run", "base"], ["completion", "bash"], ["stop", "-t"]],
)  # fmt: skip
def test_what_click_has_words_for_is_left_to_it(words: list[str]) -> None:
    assert read(words) is None


def test_both_ways_print_the_same(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIBOX_ROOT", "/nonexistent/root")
    for words in (["version"], ["version", "--json"], ["lab", "list"], ["--version"], [], ["--help"]):
        assert main(words) == 0
        fast = capfd.readouterr()
        assert run_click(words) == 0
        assert capfd.readouterr() == fast


@pytest.mark.parametrize("columns", [*range(70, 130), "", "0", "x", "300"])
def test_the_help_of_the_program(
    columns: object, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = program_help()
    assert run_click(["--help"]) == 0
    assert text is None or f"{text}\n" == capfd.readouterr().out
    assert (text is None) == (isinstance(columns, int) and columns < 80)
