"""The Dockerfiles of docker_answers.json, which Docker 20.10's BuildKit has answered, built by Docker 26 as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines import Docker
from tests.probes import requires
from tests.projects.project import OF_CONTAINERS

pytestmark = requires("root", "command:mmdebstrap", "command:iptables", "command:busybox")

SAMPLES = json.loads((Path(__file__).parents[1] / "unit/build/docker_answers.json").read_text())


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["dockerfile"].replace("\n", " | ")[:70])
def test_like_docker_of_today(sample: dict[str, Any], engine: Docker, place: Path) -> None:
    ours = sample.get("ours", sample["docker"])
    theirs = answer(engine, sample, place / "context")
    if "error" in ours:
        ours = {"error": theirs.get("error", "")}
    if "why" in sample:
        assert ours != theirs, f"no difference any more: {sample['why']}"
    else:
        assert ours == theirs


def answer(engine: Docker, sample: dict[str, Any], context: Path) -> dict[str, Any]:
    """The config of the image that Docker makes, or its error."""
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(sample["dockerfile"] + "\n")
    words = [word for name, value in sample["args"].items() for word in ("--build-arg", f"{name}={value}")]
    built = engine("build", "--quiet", *words, context, status=None, timeout_s=120)
    if built.returncode:
        return {"error": built.stderr.strip().splitlines()[-1]}
    document = json.loads(engine.out("inspect", built.stdout.strip()))[0]
    found = document["Config"] | {"Author": document["Author"]}
    return {name: value for name, value in found.items() if value and name not in OF_CONTAINERS}
