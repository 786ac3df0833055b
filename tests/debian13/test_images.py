"""The same Dockerfiles built by Docker 26's BuildKit and by minibox, and the options of its `docker build`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minibox.cli.commands.build import build
from tests.conftest import Run
from tests.engines import Docker
from tests.interop import test_build_docker
from tests.interop.test_build_docker import DOCKERFILES, context
from tests.probes import requires

__all__ = ["context"]
pytestmark = requires("root", "command:mmdebstrap", "command:iptables", "command:busybox")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_like_dockers(name: str, engine: Docker, archive: Path, context: Path, minibox: Run) -> None:
    test_build_docker.test_an_image_is_like_dockers(name, engine, archive, context, minibox)


def test_each_option_of_its_build_is_known(engine: Docker) -> None:
    known = {option for each in build.params for option in each.opts}
    for variables in ({"BUILDX_EXPERIMENTAL": "1"}, {"DOCKER_BUILDKIT": "0"}):
        told = engine.out("build", "--help", env={**engine.environment, **variables})
        theirs = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", told, re.MULTILINE))
        assert "--build-arg" in theirs
        assert theirs <= known
