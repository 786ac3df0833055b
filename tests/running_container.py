"""A container that runs while a test looks at it from outside."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from tests.leaks import SLOWNESS


class Running:
    """A container under way.

    Attributes:
        process: its `minibox`.
        first_line: what it printed first.
    """

    def __init__(self, process: subprocess.Popen[str], first_line: str) -> None:
        self.process = process
        self.first_line = first_line


@contextmanager
def running(
    command: list[str], environment: Mapping[str, str], *options: str, script: str = "echo ready", **popen: Any
) -> Iterator[Running]:
    """A container of `base` that runs ``script``, whose first line of output is awaited, and then waits.

    It ends with the block.
    """
    words = [*command, "run", "--rm", "-i", *options, "base", "sh", "-c", f"{script}; read line"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=dict(environment), **{**pipes, **popen}) as started:
        assert started.stdin and started.stdout
        try:
            first_line = started.stdout.readline()
            assert first_line, "the container did not start"
            yield Running(started, first_line)
            with suppress(
                BrokenPipeError
            ):  # it may have ended just now; nothing is kept that a close would write again
                os.write(started.stdin.fileno(), b"\n")
            started.wait(20 * SLOWNESS)
        finally:
            started.kill()
