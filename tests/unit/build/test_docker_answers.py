"""What Docker 20.10's BuildKit made of Dockerfiles from scratch, and what our language makes of them."""

from __future__ import annotations

import json
import posixpath
from pathlib import Path
from typing import Any

import pytest

from minibox.build.dockerfile import instructions as kinds
from minibox.build.dockerfile.parser import parse
from minibox.build.dockerfile.ports import exposed_ports
from minibox.build.graph import Graph
from minibox.errors import DockerfileError
from minibox.image.platform import Platform

# Made by `docker build` and `docker inspect`: a Dockerfile, its build arguments, and the image's config or "error".
SAMPLES = json.loads((Path(__file__).parent / "docker_answers.json").read_text())
AMD64 = Platform("linux", "amd64")


def argv(command: kinds.Command, shell: list[str]) -> list[str]:
    return [*shell, *command.words] if command.shell else list(command.words)


def apply(config: dict[str, Any], line: Any) -> None:
    """Put what a line says into an image's config, as Docker names it."""
    shell = config.get("Shell", ["/bin/sh", "-c"])
    if isinstance(line, kinds.Label):
        config.setdefault("Labels", {}).update(line.pairs)
    elif isinstance(line, kinds.Expose):
        config.setdefault("ExposedPorts", {}).update(dict.fromkeys(exposed_ports(line.ports), {}))
    elif isinstance(line, kinds.Volume):
        config.setdefault("Volumes", {}).update(dict.fromkeys(line.paths, {}))
    elif isinstance(line, kinds.Workdir):
        joined = posixpath.normpath(posixpath.join(config.get("WorkingDir", "/"), line.path))
        config["WorkingDir"] = line.path if line.path.startswith("/") else joined
    elif isinstance(line, kinds.Cmd):
        config["Cmd"] = argv(line.command, shell)
    elif isinstance(line, kinds.Entrypoint):
        config["Entrypoint"] = argv(line.command, shell)
    elif isinstance(line, kinds.Onbuild):
        config.setdefault("OnBuild", []).append(line.trigger)
    elif isinstance(line, kinds.Healthcheck):
        config["Healthcheck"] = healthcheck(line)
    else:
        for kind, name, field in SIMPLE:
            if isinstance(line, kind):
                config[name] = list(line.words) if isinstance(line, kinds.Shell) else getattr(line, field)


SIMPLE = [
    (kinds.User, "User", "user"),
    (kinds.Stopsignal, "StopSignal", "signal"),
    (kinds.Shell, "Shell", "words"),
    (kinds.Maintainer, "Author", "author"),
]


def healthcheck(line: kinds.Healthcheck) -> dict[str, Any]:
    if line.command is None:
        return {"Test": ["NONE"]}
    test = ["CMD-SHELL" if line.command.shell else "CMD", *line.command.words]
    fields = {
        "Interval": line.interval_ns,
        "Timeout": line.timeout_ns,
        "StartPeriod": line.start_period_ns,
        "Retries": line.retries,
    }
    return {"Test": test, **{name: value for name, value in fields.items() if value}}


def config_of(text: str, args: dict[str, str]) -> dict[str, Any]:
    """The config of the last stage, as our language has it."""
    graph = Graph(parse(text), build_args=args, platform=AMD64, build_platform=AMD64)
    scopes: dict[int | None, Any] = {}
    configs: dict[int | None, dict[str, Any]] = {}
    for stage in graph.needed():
        parent = scopes.get(stage.base.stage)
        scope = scopes[stage.index] = graph.scope(stage, parent.env.items() if parent else (), parent)
        config = configs[stage.index] = json.loads(json.dumps(configs.get(stage.base.stage, {"WorkingDir": "/"})))
        config.pop("OnBuild", None)
        for instruction in stage.instructions:
            apply(config, scope.resolve(instruction))
        config["Env"] = [f"{name}={value}" for name, value in scope.env.items()]
    return {name: value for name, value in configs[graph.target].items() if value}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["dockerfile"].replace("\n", " | ")[:70])
def test_like_docker(sample):
    answer = sample.get("ours", sample["docker"])
    if "error" in answer:
        with pytest.raises(DockerfileError):
            config_of(sample["dockerfile"], sample["args"])
    else:
        assert config_of(sample["dockerfile"], sample["args"]) == answer
