"""Machines that share a cache of builds in a registry, and what the cache holds."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minibox.build.remote_cache.document import MEDIA_TYPE
from tests.container_box import Box
from tests.integration.build.conftest import Builder
from tests.registries import FakeRegistry

BLOBS = "GET /v2/app/blobs/"
ONE = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /random\n"


class Machine(Box):
    """Another machine: with a root of its own."""

    def __init__(self, box: Box, directory: Path, driver: str) -> None:
        self._own = {"MINIBOX_ROOT": str(directory / "root"), "MINIBOX_RUNROOT": str(directory / "run")}
        if driver:
            self._own["MINIBOX_STORAGE_DRIVER"] = driver
        super().__init__(box._command, directory)

    def __call__(self, *words: str, **more: Any) -> Any:
        return self._command(*words, **{**more, "env": {**self._own, **more.get("env", {})}})

    def ok(self, *words: str, **more: Any) -> str:
        done = self(*words, **more)
        assert done.returncode == 0, (words, done)
        printed: str = done.stdout.strip()
        return printed


Machines = Callable[..., Builder]


def _machines(box: Box, context: Path) -> Machines:
    owner = os.stat(box.directory)
    seed = box.directory / "seed"
    subprocess.run(["cp", "-al", str(box.directory / "root"), str(seed)], check=True)
    count = [0]

    def make(driver: str = "") -> Builder:
        count[0] += 1
        directory = box.directory / f"machine-{count[0]}"
        (directory / "run").mkdir(mode=0o700, parents=True)
        subprocess.run(["cp", "-al", str(seed), str(directory / "root")], check=True)
        for each in (directory, directory / "run"):
            os.chown(each, owner.st_uid, owner.st_gid)
        return Builder(Machine(box, directory, driver), context)

    return make


@pytest.fixture
def machines(any_box: Box, new_context: Callable[[], Path]) -> Machines:
    """Makes machines that share a context, as root and as an ordinary user."""
    return _machines(any_box, new_context())


@pytest.fixture
def root_machines(box: Box, state: Path) -> Machines:
    context = state / "context"
    context.mkdir()
    return _machines(box, context)


def to(registry: FakeRegistry, mode: str = "max", tag: str = "cache") -> tuple[str, ...]:
    return "--cache-to", f"type=registry,ref={registry.host}/app:{tag},mode={mode}"


def of(registry: FakeRegistry, tag: str = "cache") -> tuple[str, ...]:
    return "--cache-from", f"{registry.host}/app:{tag}"


def build(builder: Builder, text: str, *words: str) -> list[str]:
    return builder.ok(text, "--network", "none", "--why", *words)


def reused(lines: list[str]) -> int:
    """How many lines came from a cache of another machine."""
    return sum(" in the cache " in line for line in lines)


def listed(registry: FakeRegistry, tag: str = "cache") -> dict[str, Any]:
    """The config of a cache."""
    manifest = json.loads(registry.manifests[f"app/{tag}"][1])
    assert manifest["config"]["mediaType"] == MEDIA_TYPE
    found: dict[str, Any] = json.loads(registry.blobs[manifest["config"]["digest"]])
    return found


def fetched(registry: FakeRegistry) -> set[str]:
    """The digests of the blobs that were asked for since the last call, without the config's."""
    found = {each.path.rpartition("/")[2] for each in registry.asked(BLOBS)}
    registry.requests.clear()
    return {each for each in found if b'"lines"' not in registry.blobs.get(each, b"")}
