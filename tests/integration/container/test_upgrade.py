"""What an older minibox has made is listed, entered, stopped, started and removed by this one.

The older one is the commit before state had a codec, built from the history beside this one's dependencies.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, Run, _runner
from tests.container_box import Box
from tests.oci_runtime import COMMAND, Runtime
from tests.probes import requires

BEFORE = "1fd2aea"
pytestmark = requires("root", "command:nft", "command:git", f"commit:{BEFORE}")


@pytest.fixture(scope="session")
def older() -> Path:
    """That commit, built; kept in the virtual environment for the next run."""
    place = Path(sys.prefix) / f"minibox-{BEFORE}"
    place.mkdir(exist_ok=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "built").exists():
            git = ["git", "-c", "safe.directory=*", "archive", BEFORE]
            data = subprocess.run(git, cwd=CHECKOUT, capture_output=True, check=True).stdout
            subprocess.run(["tar", "-x"], input=data, cwd=place, check=True)
            subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=place, check=True)
            (place / "built").touch()
    return place


@pytest.fixture
def before(older: Path, environment: dict[str, str]) -> Run:
    """The older command, on this test's own state."""
    return _runner([sys.executable, "-m", "minibox"], {**environment, "PYTHONPATH": str(older)}, cwd=older)


@pytest.fixture
def made(before: Run, box: Box) -> Iterator[Box]:
    """What the older one has made: containers that run, have ended and were never started, networks and volumes."""
    label = "a=two words"
    for words in (
        ("network", "create", "--label", label, "net"),
        ("volume", "create", "--label", label, "data"),
        ("run", "-d", "--name", "web", "--network", "net", "--network-alias", "www", "-p", "127.0.0.1::80", "-v",
         "data:/data", "-e", "A=b\nc", "--health-cmd", "true", "--health-interval", "200ms", "base",
         "sh", "-c", "echo up; echo kept > /data/file; exec sleep 1000"),
        ("run", "-d", "--name", "always", "--restart", "always", "--network", "none", "base", "sleep", "1000"),
        ("run", "--name", "ended", "--network", "none", "base", "sh", "-c", "echo out > /file; exit 3"),
        ("create", "--name", "made", "base", "cat", "/etc/hostname"),
        ("network", "connect", "--alias", "other", "net", "made"),
        ("kill", "-s", "WINCH", "web"),
    ):  # fmt: skip
        done = before(*words)
        assert done.returncode == (3 if "ended" in words else 0), (words, done)
    box.until(lambda: "up" in before("logs", "web").stdout, "it is up")
    box.until(lambda: "healthy" in before("ps").stdout, "it is healthy")
    yield box
    box.ok("rm", "-f", "-a")
    box.ok("network", "rm", "-f", "net")


def test_it_is_the_older_one_that_made_it(made: Box) -> None:
    (path,) = (made.directory / "root/networks").iterdir()
    assert not path.read_bytes().startswith(b"{")
    assert '"Kind"' not in "".join(each.read_text() for each in made.directory.glob("root/containers/*/state.json"))


def test_all_is_listed_and_shown(made: Box) -> None:
    assert set(made.ok("ps", "-a", "--format", "{{.Names}}").split()) == {"web", "always", "ended", "made"}
    assert "127.0.0.1:" in made.ok("port", "web")
    assert made.ok("logs", "web") == "up"
    (found,) = json.loads(made.ok("inspect", "web"))
    assert found["State"]["Health"]["Status"] == "healthy" and found["NetworkSettings"]["Networks"]["net"]["IPAddress"]
    assert json.loads(made.ok("network", "inspect", "net"))[0]["Labels"] == {"a": "two words"}
    assert json.loads(made.ok("volume", "inspect", "data"))[0]["Labels"] == {"a": "two words"}
    assert "in use" in made.refused("volume", "rm", "data") and "container" in made.refused("network", "rm", "net")
    assert made.ok("why", "ended").startswith("ended")
    assert made.ok("diff", "ended").split("\n") == ["A /file"]
    assert "nothing damaged" in made.ok("system", "check", "--quick")


def test_what_runs_is_entered_stopped_and_started_anew(made: Box) -> None:
    assert made.ok("exec", "web", "sh", "-c", 'cat /data/file; printf %s "$A"') == "kept\nb\nc"
    assert made.ok("run", "--rm", "--network", "net", "base", "nslookup", "www")
    for name in ("web", "always"):
        assert made.ok("exec", name, "echo", "in") == "in"
        made.ok("stop", "-t", "0", name)
        assert made.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name) == "exited 137"
        made.ok("start", name)
        assert made.ok("exec", name, "echo", "again") == "again"
    made.ok("pause", "web")
    made.ok("unpause", "web")
    made.ok("rename", "web", "front")
    made.ok("kill", "front")
    assert made.ok("wait", "front") == "137"
    assert made.ok("start", "-a", "made") == made.ok("ps", "-a", "-q", "--filter", "name=made")
    made.ok("network", "disconnect", "net", "made")


def test_all_is_removed(made: Box) -> None:
    made.ok("rm", "-f", "web", "always", "ended", "made")
    made.ok("network", "rm", "net")
    made.ok("volume", "rm", "data")
    assert made.left() == [] and os.listdir(made.directory / "root/networks") == os.listdir(
        made.directory / "root/volumes"
    )
    assert made.ok("system", "check", "--quick").endswith("nothing damaged, nothing left over")


@pytest.fixture
def made_for_an_engine(older: Path, state: Path, orphans: None) -> Iterator[Runtime]:
    """What the older minibox-oci has made: a container that runs, one that has ended and one that waits for its start."""
    command = ["env", f"PYTHONPATH={older}", sys.executable, "-m", "minibox.oci_cli"]
    before, after = Runtime(state, command, cwd=older), Runtime.__new__(Runtime)
    after.__dict__ = {**before.__dict__, "_command": [COMMAND], "_process": {}}
    script = "echo kept > /file; echo up; exec sleep 1000"
    for container_id, spec in (
        ("web", before.bundle.shell(script)),
        ("ended", before.bundle.spec("true")),
        ("made", before.bundle.spec("echo", "started")),
    ):
        spec["annotations"] = {"a": "two words\n\u2028"}
        before.create(container_id, spec)
    before.ok("start", "web")
    before.ok("start", "ended")
    before.until_written("web", "up")
    before.wait_for("ended", "stopped")
    yield after
    after.remove_all()
    assert after.left() == []


def test_an_engines_containers_are_listed_and_entered(made_for_an_engine: Runtime) -> None:
    runtime = made_for_an_engine
    assert (runtime.root / "web/spec").read_bytes()[:1] in (b"{", b"\xfb"), "it is marshal's"
    listed = {each["id"]: each["status"] for each in json.loads(runtime.ok("list", "--format", "json"))}
    assert listed == {"web": "running", "ended": "stopped", "made": "created"}
    state = runtime.state("web")
    assert state["annotations"]["a"] == "two words\n\u2028" and state["pid"] > 0
    assert runtime.ok("exec", "web", "cat", "/file") == "kept\n"
    assert "sleep" in runtime.ok("ps", "web")
    runtime.ok("pause", "web")
    assert runtime.state("web")["status"] == "paused"
    runtime.ok("resume", "web")
    runtime.ok("update", "--pids-limit", "99", "web")
    assert runtime.ok("exec", "web", "echo", "in") == "in\n"


def test_an_engines_containers_are_started_killed_and_deleted(made_for_an_engine: Runtime) -> None:
    runtime = made_for_an_engine
    runtime.ok("start", "made")
    runtime.until_written("made", "started")
    runtime.wait_for("made", "stopped")
    assert "not stopped" in runtime.error("delete", "web")
    runtime.ok("kill", "web", "KILL")
    runtime.wait_for("web", "stopped")
    for name in ("web", "ended", "made"):
        runtime.ok("delete", name)
    assert runtime.left() == []


def test_what_a_newer_one_wrote_is_named_and_left_alone(box: Box) -> None:
    """Of a container, a network and a volume."""
    box.ok("network", "create", "net")
    box.ok("volume", "create", "data")
    box.ok("create", "--name", "web", "-v", "data:/data", "base", "true")
    (state,) = box.directory.glob("root/containers/*/state.json")
    network, volume = box.directory / "root/networks/net", box.directory / "root/volumes/data/volume.json"
    good = network.read_text()
    texts = {}
    for path in (state, network, volume):
        path.write_text(json.dumps({**json.loads(path.read_text()), "Format": 3}))
        texts[path] = path.read_text()
    newer = "was written by a newer minibox (format 3, this one reads up to 1)"
    assert newer in box.refused("start", "web")
    assert newer in box.refused("rm", "web")
    assert newer in box("network", "inspect", "net").stderr
    assert newer in box.refused("network", "rm", "net")
    assert newer in box.refused("run", "--rm", "--network", "net", "base", "true")
    assert newer in box("volume", "ls").stderr
    box.ok("volume", "create", "other")
    other = box.directory / "root/volumes/other/volume.json"
    other.write_text(json.dumps({**json.loads(other.read_text()), "Format": 3}))
    box("system", "prune", "--force", "--volumes", "--all")
    box("volume", "prune", "--force", "--all")
    assert other.exists()
    assert newer in box("system", "check", "--quick", "--repair").stdout
    assert {path: path.read_text() for path in texts} == texts
    network.write_text(good)
    box.ok("rm", "-f", "web")
    box.ok("network", "rm", "net")
