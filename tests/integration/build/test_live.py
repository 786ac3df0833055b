"""A build on a terminal: what runs is redrawn in place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.container_box import Box
from tests.integration.build.conftest import Builder


def test_a_terminal_shows_what_runs(
    box: Box, state: Path, environment: dict[str, str], terminal: Callable[..., Any]
) -> None:
    environment["TERM"] = "xterm"
    (state / "context").mkdir()
    builder = Builder(box, state / "context")
    builder.file("Dockerfile", "FROM base\nRUN echo first > /x\nRUN echo said; sleep 1000\n")
    child = terminal("build", "--network", "none", "-t", "built", str(builder.context), size=(24, 100))
    child.expect(r" => \[stage-0 2/3\] RUN echo first > /x +\d+\.\ds\r\n")
    child.expect(r" => => said\r\n\[\+\] building \d+\.\ds \(2/3\)\r\n")
    child.sendintr()
    child.expect(r"\x1b\[\d+A\r\x1b\[J")
    child.wait()
    assert child.exitstatus == 130
    builder.file("Dockerfile", "FROM base\nRUN echo first > /x\n")
    child = terminal("build", "--network", "none", "-t", "built", str(builder.context), size=(24, 100))
    child.expect(r" => CACHED \[stage-0 2/2\]")
    child.expect(r"\[\+\] built 2 lines, 1 cached in ")
    child.expect("named docker.io/library/built:latest")
    child.wait()
    assert child.exitstatus == 0
