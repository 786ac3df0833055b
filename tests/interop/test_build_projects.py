"""Projects on busybox, built and run by minibox, and compared with what Docker's BuildKit and buildah make of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.engines import Docker, busybox_archive, docker
from tests.probes import requires
from tests.projects.project import PROJECTS, Buildah, compare, compare_config

pytestmark = requires("root", "command:dockerd", "command:iptables", "command:busybox", "command:buildah")

ARGUMENTS = ("--build-arg", "BASE=bb")
WITHOUT_NETWORK = (*ARGUMENTS, "--network", "none")
#: What each prints.
RUNS = {
    "onbuild": ((), "name=app\nmode=production\n7\n"),
    "heredocs": ((), "greeting=hello\ngreeting=$GREETING\none\ntwo\n"),
    "static-site": (
        ("sh", "-c", "httpd -p 80 -h /www; wget -q -O - http://127.0.0.1/home.html; ls /www/assets"),
        "<html><body><pre>\nwelcome\n</pre></body></html>\nstyle.css\n",
    ),
    "database": ((), "serving as db, version 1, seeded\n"),
}
#: Docker 20.10 and buildah 1.28 have no heredocs.
WITH_HEREDOCS = {"heredocs"}


@pytest.fixture(scope="module")
def archive(session_directory: Path) -> Path:
    return busybox_archive(session_directory / "projects-bb.tar")


@pytest.fixture(scope="module")
def engine(session_directory: Path, archive: Path) -> Iterator[Docker]:
    with docker(session_directory / "projects-docker", archive, DOCKER_BUILDKIT="1") as found:
        yield found


@pytest.fixture(scope="module")
def buildah(session_directory: Path, archive: Path, engine: Docker) -> Iterator[Buildah]:
    saved = session_directory / "projects-bb-saved.tar"
    engine("save", "-o", saved, "bb")
    with Buildah(session_directory / "projects-buildah") as found:
        found("pull", f"docker-archive:{saved}")
        yield found


@pytest.mark.parametrize("name", RUNS)
def test_a_project_is_built_and_runs(name: str, archive: Path, minibox: Run) -> None:
    build(name, archive, minibox)
    words, printed = RUNS[name]
    ran = minibox("run", "--rm", "--network", "none", name, *words)
    assert (ran.returncode, ran.stdout) == (0, printed), ran.stderr


@pytest.mark.parametrize("name", sorted(RUNS.keys() - WITH_HEREDOCS))
def test_a_project_is_like_that_of_others(
    name: str, archive: Path, engine: Docker, buildah: Buildah, minibox: Run, tmp_path: Path
) -> None:
    build(name, archive, minibox, "-o", f"type=tar,dest={tmp_path}/ours.tar")
    build(name, archive, minibox)
    engine("build", "-t", name, *WITHOUT_NETWORK, PROJECTS / name, timeout_s=300)
    engine("build", "-o", f"type=tar,dest={tmp_path}/docker.tar", *WITHOUT_NETWORK, PROJECTS / name, timeout_s=300)
    buildah.build(name, *ARGUMENTS, PROJECTS / name)
    buildah.export(name, tmp_path / "buildah.tar")
    compare(tmp_path / "ours.tar", tmp_path / "docker.tar")
    compare(tmp_path / "ours.tar", tmp_path / "buildah.tar")
    inspected = minibox("image", "inspect", name).stdout
    assert json.loads(inspected)[0]["Config"]
    compare_config(inspected, engine.out("inspect", name))
    compare_config(inspected, buildah.inspect(name))


def build(name: str, archive: Path, minibox: Run, *words: str) -> None:
    assert minibox("import", "-c", 'CMD ["sh"]', str(archive), "bb").returncode == 0
    done = minibox("build", "-t", name, *WITHOUT_NETWORK, *words, str(PROJECTS / name))
    assert done.returncode == 0, done.stderr
