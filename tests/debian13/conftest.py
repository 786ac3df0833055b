"""Each test here is checked for what it leaves behind; the engines of Debian 13 start when a test first wants one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.debian13.root import entered, make
from tests.engines import Docker, busybox_archive, docker
from tests.interop.conftest import crun_hierarchies
from tests.leaks import leak_check
from tests.projects.project import Buildah

__all__ = ["crun_hierarchies", "leak_check"]


@pytest.fixture(scope="session")
def place(session_directory: Path) -> Path:
    made = session_directory / "debian13"
    made.mkdir()
    return made


@pytest.fixture(scope="session")
def enter(session_directory: Path, host_netns: str, crun_hierarchies: None) -> Iterator[tuple[str, ...]]:
    """The words that start a program of Debian 13."""
    make("nsenter", f"--net={host_netns}")
    with entered(session_directory) as words:
        yield words


@pytest.fixture(scope="session")
def archive(place: Path) -> Path:
    return busybox_archive(place / "bb.tar")


@pytest.fixture(scope="session")
def engine(place: Path, archive: Path, enter: tuple[str, ...]) -> Iterator[Docker]:
    with docker(place / "docker", archive, enter=enter, oci="/usr/bin/runc") as found:
        yield found


@pytest.fixture(scope="session")
def buildah(place: Path, engine: Docker, enter: tuple[str, ...]) -> Iterator[Buildah]:
    engine("save", "-o", place / "bb-saved.tar", "bb")
    with Buildah(place / "buildah", enter) as found:
        found("pull", f"docker-archive:{place}/bb-saved.tar")
        yield found
