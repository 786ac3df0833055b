"""Wrong use of the Python API says which argument is wrong, what is expected, what came and what to do."""

from __future__ import annotations

import asyncio
import io
import traceback
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import minibox
from minibox import aio
from minibox.api.arguments import BUILD, OPTIONS
from minibox.api.image_build import BuildKeywords
from minibox.api.options import ContainerOptions, run_options
from minibox.errors import WrongArgument
from tools.arguments import PAGE, with_tables

run: Any = minibox.run  # wrong calls are the point here
Sandbox: Any = minibox.Sandbox

WRONG: dict[str, Any] = {
    "env": [["A=b"], {1: "x"}, "A=b"],
    "cwd": [3, b"/tmp"],
    "user": [-1, True, 1.5, ("a", "b")],
    "network": [3, True],
    "aliases": ["db", {"db": 1}, 3],
    "ports": [[80], 80, "80:80", {80: None}, {80: 8080.0}],
    "memory": ["1 apple", 5, "5m", 64.5, True, -1],
    "memory_swap": [-2, "all", 1.5],
    "cpus": ["0.5", 0, -1, True, float("nan"), float("inf")],
    "processes": ["5", 0, -2, 1.5, True],
    "cpu_time": ["2s", 0, -1, float("nan"), timedelta(seconds=1)],
    "wall_time": ["2", 0, 0.0, -0.001, float("inf"), [1]],
    "output": [-1, "many", 1.5],
    "file_size": [-1, "1 x"],
    "disk": [0, "0", False],
    "ulimits": [{"nofile": "many"}, {"nofile": (1, 2, 3)}, ["nofile=1"]],
    "mounts": ["a:/b", 3],
    "tmpfs": ["/run", {"/run": ""}],
    "read_only": ["no", 1, "yes"],
    "shm_size": [0, -1],
    "entrypoint": [["sh"], 3],
    "labels": [{"a": None}, ["a=b"]],
    "name": [3, b"db"],
    "pull": ["sometimes", True],
    "root": [3, b"/tmp"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values], ids=repr
)
def test_a_wrong_option_is_named(name: str, value: Any) -> None:
    with pytest.raises(WrongArgument) as told:
        run("base", ["true"], **{name: value})
    words, expected = str(told.value), OPTIONS[name].kind.expected
    assert words.startswith(f"run: {name}=") and f"expected {expected}, got {type(value).__name__}" in words
    assert name in (told.value.hint or "")
    for kind in (minibox.UsageError, TypeError, ValueError):
        assert isinstance(told.value, kind)


CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "an image that is a number": (lambda: run(3, ["true"]), "run: image=3: expected an image's name.*got int"),
    "an image that is None": (lambda: Sandbox(None), "Sandbox: image=None: expected an image's name"),
    "a command line": (lambda: run("base", "echo hi"), "run: args='echo hi': expected a command: a list of words"),
    "a word that is a number": (lambda: run("base", ["sleep", 3]), "word 1 of the command must be a string"),
    "a timeout as text": (lambda: run("base", ["true"], timeout="5"), "run: timeout='5': expected seconds"),
    "an option with a slip": (lambda: run("base", ["true"], memroy="1g"), "run: unknown argument 'memroy'"),
    "a stream that is a name": (lambda: run("base", stdout="out.txt"), "run: stdout='out.txt': expected PIPE"),
    "a stream without a descriptor": (
        lambda: run("base", stdout=io.StringIO()),
        "run: stdout=<.*StringIO.*: expected PIPE",
    ),
    "an input that is a number": (lambda: run("base", input=5), "run: input=5: expected a string or bytes"),
    "input and stdin": (lambda: run("base", input="", stdin=minibox.PIPE), "stdin can't be given with input"),
    "an unknown encoding": (lambda: run("base", encoding="utf9"), "run: encoding='utf9': expected an encoding"),
    "a flag as text": (lambda: run("base", check="yes"), "run: check='yes': expected True or False"),
    "ports without a network": (lambda: run("base", ports={80: 8080}), "ports={80: 8080} with network 'none'"),
    "ports of this host": (lambda: run("base", ports={80: 80}, network="host"), "ports={80: 80} with network 'host'"),
    "aliases without a network": (lambda: run("base", aliases=["db"]), r"aliases=\['db'\] with network 'none'"),
    "a capability that is None": (lambda: run("base", cap_drop=[None]), "entry 0 of cap_drop must be a string"),
    "a function's timeout": (lambda: minibox.sandboxed(timeout=0), "sandboxed: timeout=0: expected seconds.*above 0"),
    "a function's option": (lambda: minibox.sandboxed(memory=1), "sandboxed: memory=1: expected a size"),
    "a subnet": (lambda: minibox.Network(subnet=3), "Network: subnet=3: expected a string"),  # type: ignore[arg-type]
    "an image to get": (lambda: minibox.Image.get(3), "Image.get: reference=3: expected a string"),  # type: ignore[arg-type]
    "a build's tags": (lambda: minibox.ImageBuild("/", tags="web"), "ImageBuild: tags='web': expected a list"),
    "a build's slip": (lambda: minibox.ImageBuild("/", tag="web"), "ImageBuild: unknown argument 'tag'"),  # type: ignore[call-arg]
    "in asyncio": (lambda: asyncio.run(aio.run("base", timeout="5")), "run: timeout='5'"),  # type: ignore[call-overload]
    "a sandbox in asyncio": (lambda: aio.Sandbox("base", cpus="1"), "Sandbox: cpus='1'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_call_is_told_with_a_hint(call: str) -> None:
    attempt, words = CALLS[call]
    with pytest.raises(WrongArgument, match=words) as told:
        attempt()
    assert told.value.hint and f"\nhint: {told.value.hint}" in "".join(traceback.format_exception(told.value))


@pytest.mark.parametrize(
    ("value", "hint"),
    [({"cpus": "0.5"}, "write cpus=0.5"), ({"processes": "5"}, "write processes=5"),
     ({"wall_time": 0}, "for example wall_time=10; wall_time=None for no limit"),
     ({"memroy": 1}, "did you mean 'memory'?")],
)  # fmt: skip
def test_a_hint_says_what_to_write(value: dict[str, Any], hint: str) -> None:
    with pytest.raises(WrongArgument) as told:
        run("base", **value)
    assert told.value.hint == hint


def test_none_is_as_if_it_was_not_given() -> None:
    nothing: Any = dict.fromkeys(OPTIONS)
    assert run_options("base", (), nothing) == run_options("base", (), {})


def test_each_example_is_right() -> None:
    for name, option in OPTIONS.items():
        keywords = eval(f"dict({option.example})")
        if name in ("ports", "aliases"):
            keywords["network"] = "bridge"
        assert option.kind.accepts(keywords[name])
        run_options("base", (), keywords)


def test_numbers_of_other_libraries_are_numbers() -> None:
    assert run_options("base", (), {"wall_time": Fraction(1, 2)}).timeout_s == 0.5  # type: ignore[typeddict-item]
    assert OPTIONS["wall_time"].kind.accepts(Fraction(1, 2)) and not OPTIONS["wall_time"].kind.accepts(Fraction(-1, 2))


def test_the_tables_are_complete() -> None:
    assert OPTIONS.keys() == ContainerOptions.__annotations__.keys()
    assert BUILD.keys() == BuildKeywords.__annotations__.keys()


def test_the_page_has_todays_tables() -> None:
    page = PAGE.read_text()
    assert page == with_tables(page), "run `make map`"


def test_a_hint_is_one_note_however_often_it_changes() -> None:
    error = minibox.MiniboxError("what", "this")
    error.add_note("of somebody else")
    error.hint = "that"
    assert error.__notes__ == ["of somebody else", "hint: that"]
    error.hint = None
    assert error.__notes__ == ["of somebody else"]


def test_a_path_is_a_path(tmp_path: Path) -> None:
    assert run_options("base", (), {"cwd": tmp_path}).workdir == str(tmp_path)
