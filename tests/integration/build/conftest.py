"""Builds of small Dockerfiles: a directory with a context, and commands that build it and look at the image."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.container_box import Box
from tests.registry_pulls import registry

__all__ = ["registry"]


class Builder:
    """Builds contexts of its own directory.

    Attributes:
        context: the directory.
    """

    def __init__(self, box: Box, context: Path) -> None:
        self.box, self.context = box, context

    def file(self, name: str, content: str | bytes = "", mode: int = 0o644) -> Path:
        """Write a file of the context."""
        path = self.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def run(self, dockerfile: str, *words: str, **more: Any) -> Any:
        """Build a Dockerfile; its CompletedProcess."""
        self.file("Dockerfile", dockerfile)
        return self.box("build", "-t", "built", *words, str(self.context), **more)

    def ok(self, dockerfile: str, *words: str, **more: Any) -> list[str]:
        """Build a Dockerfile, which succeeds; what it prints, by line."""
        done = self.run(dockerfile, *words, **more)
        assert done.returncode == 0, done.stderr
        lines: list[str] = done.stderr.splitlines()
        return lines

    def refused(self, dockerfile: str, *words: str, **more: Any) -> str:
        """Build a Dockerfile, which fails with status 1; the error."""
        done = self.run(dockerfile, *words, **more)
        assert done.returncode == 1, done
        return str(done.stderr[done.stderr.index("minibox: ") :])

    def sh(self, script: str) -> str:
        """What a script prints in the image."""
        return self.box.ok("run", "--rm", "--network", "none", "--entrypoint", "", "built", "sh", "-c", script)

    def image(self) -> dict[str, Any]:
        """The image's document."""
        found: dict[str, Any] = json.loads(self.box.ok("image", "inspect", "built"))[0]
        return found

    def config(self) -> dict[str, Any]:
        """The execution part of the image's config."""
        found: dict[str, Any] = self.image()["Config"]
        return found


def cached(lines: list[str]) -> list[bool]:
    """For each line of the build that works, in order, whether it came from the cache."""
    return [
        line.endswith(" CACHED") for line in lines if line.startswith("#") and line.split(" ")[1] in ("CACHED", "DONE")
    ]


@pytest.fixture
def builder(any_box: Box, new_context: Callable[[], Path]) -> Builder:
    """As root, and as an ordinary user."""
    return Builder(any_box, new_context())


@pytest.fixture
def root_builder(box: Box, state: Path) -> Builder:
    """As root."""
    context = state / "context"
    context.mkdir()
    return Builder(box, context)


@pytest.fixture
def new_context(any_box: Box) -> Callable[[], Path]:
    """Make another directory for a context, which the user of `any_box` can read and write."""
    owner = os.stat(any_box.directory)

    def make() -> Path:
        number = len(list(any_box.directory.glob("context-*")))
        made = any_box.directory / f"context-{number}"
        made.mkdir(mode=0o755)
        os.chown(made, owner.st_uid, owner.st_gid)
        return made

    return make
