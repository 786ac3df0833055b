"""Each test here is checked for what it leaves behind; crun gets the cgroup hierarchies that it insists on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import isolation
from tests.conftest import Run
from tests.leaks import leak_check
from tests.peers import Peers

__all__ = ["crun_hierarchies", "leak_check"]


@pytest.fixture(scope="session", autouse=True)
def crun_hierarchies() -> Iterator[None]:
    """Before the leak check of any test, so that it is none of theirs."""
    if os.geteuid() != 0:
        yield
        return
    with isolation.v2_without_controllers():
        yield


@pytest.fixture
def podman(state: Path) -> Iterator[list[str]]:
    """podman with its own storage, and without the ulimits that it can't set everywhere."""
    configuration = state / "containers.conf"
    configuration.write_text('[containers]\ndefault_ulimits = []\n[engine]\nevents_logger = "none"\n')
    storage = ["--root", f"{state}/podman", "--runroot", f"{state}/podman-run", "--storage-driver", "vfs"]
    command = ["env", f"CONTAINERS_CONF={configuration}", "podman", *storage]
    yield command
    subprocess.run([*command, "rmi", "--all", "--force"], check=True, capture_output=True)


@pytest.fixture
def peers(state: Path, minibox: Run) -> Iterator[Peers]:
    """minibox-oci, runc and crun; their containers go with the test."""
    found = Peers(state)
    yield found
    found.remove_all()
    assert {name: runtime.left() for name, runtime in found.all.items() if runtime.left()} == {}
