"""A container that runs while a test looks at it from outside."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def running(
    command: list[str], environment: Mapping[str, str], *options: str, script: str = "echo ready", **popen: Any
) -> Iterator[subprocess.Popen[str]]:
    """A container of `base` that runs ``script``, whose first line of output is awaited, and then waits.

    Its end comes with the end of the block, and must be a good one.
    """
    words = [*command, "run", "--rm", "-i", *options, "base", "sh", "-c", f"{script}; read line"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=dict(environment), **{**pipes, **popen}) as started:
        assert started.stdin and started.stdout
        try:
            started.first_line = started.stdout.readline()  # type: ignore[attr-defined]
            assert started.first_line, "the container did not start"  # type: ignore[attr-defined]
            yield started
            if started.poll() is None:
                started.stdin.write("\n")
                started.stdin.flush()
            started.wait(20)
        finally:
            started.kill()
