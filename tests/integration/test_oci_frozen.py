"""Cgroups that somebody has frozen: nothing waits in them for ever, and whatever is in them can be deleted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import remove_cgroups, wait_until
from tests.oci_runtime import TIMEOUT_S, Runtime
from tests.probes import requires

pytestmark = [requires("root", "command:busybox"), pytest.mark.kernel]
V1 = Path("/sys/fs/cgroup/freezer")
IS_V1 = V1.is_dir()
TOP = V1 if IS_V1 else Path("/sys/fs/cgroup")
FILE, FROZEN, THAWED = ("freezer.state", "FROZEN", "THAWED") if IS_V1 else ("cgroup.freeze", "1", "0")


def freeze(group: Path) -> None:
    (group / FILE).write_text(FROZEN)


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup of the hierarchy that can freeze."""
    found = TOP / f"minibox-oci-test-frozen-{os.getpid()}"
    found.mkdir()
    yield found
    (found / FILE).write_text(THAWED)
    remove_cgroups(found.name)


@pytest.mark.parametrize("below", ["", "/there", "/new"])
def test_a_start_into_one_is_refused(runtime: Runtime, group: Path, below: str):
    """As by runc, and also where it is one above that is frozen: there runc and crun wait for ever."""
    (group / "there").mkdir()
    freeze(group)
    runtime.write(runtime.bundle.spec("true", cgroupsPath=f"/{group.name}{below}"))
    for words in (("create",), ("run",), ("run", "--detach")):
        said = runtime.error(*words, "--bundle", str(runtime.bundle.path), "c1", stdout=subprocess.DEVNULL)
        assert said == "container's cgroup unexpectedly frozen"
    assert runtime.left() == []


def test_a_created_one_that_is_frozen_is_paused_and_not_started(runtime: Runtime):
    runtime.create("c1", runtime.bundle.spec("echo", "ran"))
    runtime.ok("pause", "c1")
    assert runtime.state("c1")["status"] == "paused"
    assert "paused state" in runtime.error("start", "c1")
    assert "not stopped" in runtime.error("delete", "c1")
    runtime.ok("resume", "c1")
    assert runtime.state("c1")["status"] == "created"
    runtime.ok("start", "c1")
    runtime.wait_for("c1", "stopped")
    assert runtime.output("c1").read_text() == "ran\n"


@pytest.mark.parametrize("below", [False, True], ids=["its own", "one below"])
def test_whatever_is_frozen_is_deleted(runtime: Runtime, group: Path, below: bool):
    runtime.create("c1", runtime.bundle.spec("sleep", "1000", cgroupsPath=f"/{group.name}/c1"))
    runtime.ok("start", "c1")
    place = group / "c1"
    if below:
        place = place / "inner"
        place.mkdir()
        (place / "cgroup.procs").write_text(str(runtime.state("c1")["pid"]))
    freeze(place)
    runtime.ok("delete", "--force", "c1")
    assert runtime.left() == [] and not (group / "c1").exists()


def test_one_whose_making_was_frozen_and_killed_is_deleted(runtime: Runtime, group: Path):
    """Its first process can't be ended until it is thawed, and nobody has written down which one that is."""
    place = group / "c1"
    spec = runtime.bundle.spec("true", cgroupsPath=f"/{group.name}/c1")
    script = f"echo {FROZEN} > {place}/{FILE}"
    spec["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    runtime.write(spec)
    argv = runtime.argv("create", "--bundle", str(runtime.bundle.path), "c1")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as maker:
        wait_until(lambda: place.exists() and FROZEN in (place / FILE).read_text(), "the hook has run")
        maker.kill()
        maker.wait(TIMEOUT_S)
    runtime.ok("delete", "--force", "c1")
    assert runtime.left() == [] and not place.exists()
