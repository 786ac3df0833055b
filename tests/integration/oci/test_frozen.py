"""Cgroups that somebody has frozen: nothing waits in them for ever, and whatever is in them can be deleted."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minibox.engine.oci.state import Container
from minibox.engine.process import gate
from minibox.errors import MiniboxError
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


@pytest.mark.parametrize("above", [False, True], ids=["its own", "the one above"])
@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_one_that_is_frozen_while_it_is_made_is_refused(runtime: Runtime, group: Path, kind: str, above: bool):
    """Behind the check, by a hook: nobody waits for the thaw, and what was made goes, on cgroup v1 too."""
    frozen = group if above else group / "c1"
    script = f"echo {FROZEN} > {frozen}/{FILE}"
    spec = runtime.bundle.spec("true", cgroupsPath=f"/{group.name}/c1")
    spec["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    runtime.write(spec)
    for words in (("create",), ("run",), ("run", "--detach")):
        said = runtime.error(*words, "--bundle", str(runtime.bundle.path), "c1", stdout=subprocess.DEVNULL)
        assert said == "container's cgroup unexpectedly frozen"
        assert runtime.left() == [] and not (group / "c1").exists()
        (group / FILE).write_text(THAWED)


def test_a_freeze_at_any_time_hangs_nobody(runtime: Runtime, group: Path, tmp_path: Path):
    """As soon as the cgroup is there: it is refused, or made, and paused then; and it can be deleted."""
    place = group / "c1"
    runtime.write(runtime.bundle.spec("true", cgroupsPath=f"/{group.name}/c1"))
    argv = runtime.argv("create", "--bundle", str(runtime.bundle.path), "c1")
    for delay_s in (0, 0.0005, 0.002, 0.005, 0.02):
        # Not a pipe: a container that is made has it, too, and holds it open while it is frozen.
        with (
            (tmp_path / "said").open("w+b") as stderr,
            subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr) as maker,
        ):
            while maker.poll() is None:
                try:
                    time.sleep(delay_s)
                    freeze(place)
                except OSError:
                    continue
                break
            maker.wait(TIMEOUT_S)
        if maker.returncode:
            assert b"unexpectedly frozen" in (tmp_path / "said").read_bytes()
            assert runtime.left() == []
        else:
            assert runtime.state("c1")["status"] in ("created", "paused")
        runtime.ok("delete", "--force", "c1")
        assert runtime.left() == [] and not place.exists()


def test_one_below_a_frozen_one_is_deleted(runtime: Runtime, group: Path):
    """It isn't ours to thaw the one above."""
    runtime.create("c1", runtime.bundle.spec("sleep", "1000", cgroupsPath=f"/{group.name}/c1"))
    runtime.ok("start", "c1")
    freeze(group)
    runtime.ok("delete", "--force", "c1")
    assert runtime.left() == [] and not (group / "c1").exists()
    assert FROZEN in (group / FILE).read_text()


def test_a_start_that_is_overtaken_by_a_freeze_gives_up(runtime: Runtime, group: Path):
    """Behind the check of `start`, which holds the container's lock: nobody else could resume it."""
    runtime.create("c1", runtime.bundle.spec("echo", "ran", cgroupsPath=f"/{group.name}/c1"))
    freeze(group / "c1")
    container = Container.find(str(runtime.root), "c1")
    with pytest.raises(MiniboxError, match="paused while it was started"):
        gate.open_gate(container.directory, container.refuse_frozen)
    runtime.ok("resume", "c1")
    runtime.wait_for("c1", "stopped")
    assert runtime.output("c1").read_text() == "ran\n"
