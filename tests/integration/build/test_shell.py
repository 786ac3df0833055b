"""What is kept of a line that failed, and `build --shell`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.build.conftest import Builder

TEXT = "FROM base\nARG A=1\nRUN echo before > /before\nRUN echo half > /half; false\n"


@pytest.mark.parametrize("words", [(), ("--shell",)], ids=["plain", "shell"])
def test_both_states_are_kept_without_a_terminal(builder: Builder, words: tuple[str, ...]) -> None:
    said = builder.refused(TEXT, *words)
    ids = re.findall(r"minibox shell ([0-9a-f]{12})", said)
    assert len(ids) == 2 and f"minibox image diff {ids[0]} {ids[1]}" in said, said
    run = ("run", "--rm", "--network", "none")
    assert builder.box.ok(*run, ids[0], "sh", "-c", "cat /before; ls /half 2>/dev/null; echo $A") == "before\n1"
    assert builder.box.ok(*run, ids[1], "cat", "/half") == "half"
    assert builder.box.ok("image", "diff", *ids) == "A /half"
    builder.box.ok("image", "prune", "--force")
    assert builder.box(*run, ids[0], "true").returncode == 125


def test_the_commands_find_another_root(builder: Builder) -> None:
    builder.file("Dockerfile", "FROM base\nRUN false\n")
    root = str(builder.box.directory / "another root")
    said = builder.box("--root", root, "build", "--network", "none", str(builder.context))
    assert said.returncode == 1
    image = re.findall(rf"minibox --root '{root}' shell (\w+) opens", said.stderr)
    assert image, said.stderr
    assert builder.box.ok("--root", root, "run", "--rm", "--network", "none", image[0], "echo", "x") == "x"


def test_a_line_that_left_nothing_has_one_state(builder: Builder) -> None:
    said = builder.refused("FROM base\nRUN false\n")
    assert len(re.findall(r"minibox shell ([0-9a-f]{12})", said)) == 1 and "image diff" not in said, said


def test_what_only_one_of_two_failed_stages_left_is_told(builder: Builder) -> None:
    fails = "RUN echo x > /half; sleep 1; false\n"
    text = f"FROM base AS a\n{fails}FROM base AS b\n{fails}FROM base\nCOPY --from=a /half /a\nCOPY --from=b /half /b\n"
    said = builder.refused(text)
    assert len(re.findall(r"minibox shell", said)) == 2, said
    builder.box.ok("image", "prune", "--force")
    builder.box.ok("builder", "prune", "--force")
    kept = builder.box.directory / "root/build/layers"
    assert not [each for each in kept.rglob("*") if each.is_file() and "b01d" not in each.name]  # that of FROM scratch


def test_on_a_terminal_nothing_is_kept_without_shell(builder: Builder, terminal: Callable[..., Any]) -> None:
    builder.file("Dockerfile", TEXT)
    if builder.box.directory.stat().st_uid:
        return  # the terminal's command runs as root
    child = terminal("build", "--network", "none", str(builder.context))
    child.expect("--shell opens a shell in the state before it")
    child.wait()
    assert child.exitstatus == 1
    assert "<none>" not in builder.box.ok("image", "ls")


def test_a_shell_opens_on_a_terminal(builder: Builder, terminal: Callable[..., Any], any_box: Any) -> None:
    text = "FROM base\nENV A=1\nRUN --mount=type=tmpfs,target=/t echo x > /half; false\n"
    builder.file("Dockerfile", text)
    if builder.box.directory.stat().st_uid:
        return  # the terminal's command runs as root
    child = terminal("build", "--network", "none", "--shell", str(builder.context))
    child.expect("exit ends the build")
    child.expect("[#$] ")
    child.sendline("echo A is $A; ls /half; df /t | tail -n 1; exit 5")
    child.expect("A is 1")
    child.expect("No such file")
    child.expect("tmpfs")
    child.expect("failed")
    child.wait()
    assert child.exitstatus == 1
