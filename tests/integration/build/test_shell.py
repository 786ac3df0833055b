"""`build --shell`: what is left of a line that failed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.integration.build.conftest import Builder

TEXT = "FROM base\nARG A=1\nRUN echo before > /before\nRUN echo half > /half; false\n"


def test_both_states_are_kept_without_a_terminal(builder: Builder) -> None:
    said = builder.refused(TEXT, "--shell")
    ids = re.findall(r"minibox shell ([0-9a-f]{12})", said)
    assert len(ids) == 2 and f"minibox image diff {ids[0]} {ids[1]}" in said, said
    run = ("run", "--rm", "--network", "none")
    assert builder.box.ok(*run, ids[0], "sh", "-c", "cat /before; ls /half 2>/dev/null; echo $A") == "before\n1"
    assert builder.box.ok(*run, ids[1], "cat", "/half") == "half"
    assert builder.box.ok("image", "diff", *ids) == "A /half"
    builder.box.ok("image", "prune", "--force")
    assert builder.box(*run, ids[0], "true").returncode == 125


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
