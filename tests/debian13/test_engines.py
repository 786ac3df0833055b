"""Debian 13's engines are those that are meant, and they start containers here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.engines import Client, Docker, engine_environment, remove_cgroups
from tests.probes import requires
from tests.projects.project import Buildah

pytestmark = requires("root", "command:mmdebstrap", "command:iptables", "command:busybox")
VERSIONS = {
    "dockerd": "26.1", "docker": "26.1", "docker buildx": "0.13", "buildah": "1.39", "podman": "5.4", "crun": "1.21",
}  # fmt: skip


@pytest.mark.parametrize("name", VERSIONS)
def test_versions(name: str, enter: tuple[str, ...]) -> None:
    word = "version" if name == "docker buildx" else "--version"
    told = subprocess.run([*enter, *name.split(), word], capture_output=True, text=True, check=True).stdout
    assert f" {VERSIONS[name]}" in told.splitlines()[0]


def test_docker_runs_a_container(engine: Docker) -> None:
    assert engine.out("run", "--rm", "--network", "none", "bb", "echo", "docker") == "docker"


def test_buildah_runs_a_container(buildah: Buildah) -> None:
    container = buildah.out("from", "--pull-never", "localhost/bb")
    assert buildah.out("run", "--isolation", "chroot", container, "echo", "buildah") == "buildah"
    buildah("rm", container)


def test_podman_runs_a_container_with_crun(place: Path, buildah: Buildah, enter: tuple[str, ...]) -> None:
    own = ["--root", f"{place}/podman", "--runroot", f"{place}/podman-run", "--storage-driver", "vfs"]
    cgroup = "mbengine-podman13"
    podman = Client([*enter, "podman", *own, "--cgroup-manager", "cgroupfs"], engine_environment())
    words = ("--rm", "--network", "none", "--cgroup-parent", f"/{cgroup}", "--ulimit", "host", "bb", "echo", "podman")
    try:
        podman("load", "--input", place / "bb-saved.tar")
        assert podman.out("run", *words) == "podman"
    finally:
        podman("rmi", "--all", "--force", status=None)
        remove_cgroups(cgroup)
