"""Images that minibox commits: skopeo and umoci read them, podman runs them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.probes import requires

SCRIPT = """
echo new > /etc/new; chown 7:8 /etc/new; chmod 4750 /etc/new; rm /etc/group; rm -r /root; mkdir /root
touch -d @7 /root /root/here; mkdir -m 1777 /srv/d; ln /etc/new /srv/d/hard; ln -s /etc/new /srv/link; mkfifo /srv/fifo
touch /srv/d/naïve; touch "/srv/d/$(printf '\\377')"; touch /srv/d/$(printf '%0200d' 7)
dd if=/dev/zero of=/srv/sparse bs=1 count=1 seek=5M 2> /dev/null
"""


@pytest.fixture
def layout(minibox: Run, state: Path) -> Path:
    """A store with the image app:2, which was committed twice."""
    for number, (base, script) in enumerate(
        (("base", SCRIPT), ("app:1", "rm -r /srv/d; mkdir /srv/d; touch /srv/d/x")), 1
    ):
        options = ("--network", "none", "--name", f"c{number}", "-e", "A=b", "-w", "/srv", base)
        assert minibox("run", *options, "sh", "-c", script).returncode == 0
        committed = minibox("commit", "-m", "why", "-c", "CMD ls -A /root /srv/d", f"c{number}", f"app:{number}")
        assert committed.returncode == 0, committed.stderr
    return state / "root/images"


def run(*command: object, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, env={**os.environ, **(env or {})}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@requires("root", "command:skopeo")
def test_skopeo_inspects_and_copies_it(layout: Path, state: Path) -> None:
    source = f"oci:{layout}:docker.io/library/app:2"
    seen = json.loads(run("skopeo", "inspect", source))
    assert len(seen["Layers"]) == 3 and "A=b" in seen["Env"]
    config = json.loads(run("skopeo", "inspect", "--config", source))
    assert [entry.get("comment") for entry in config["history"][-2:]] == ["why", "why"]
    assert config["config"]["WorkingDir"] == "/srv"
    # Docker's older form needs a history of as many layers.
    run("skopeo", "copy", "--insecure-policy", "--format", "v2s2", source, f"dir:{state}/copy")


@requires("root", "command:umoci")
def test_umoci_unpacks_it_as_the_container_was(layout: Path, state: Path) -> None:
    run("umoci", "unpack", "--image", f"{layout}:docker.io/library/app:1", state / "bundle")
    tree = state / "bundle/rootfs"
    new = (tree / "etc/new").stat()
    assert (new.st_uid, new.st_gid, new.st_mode & 0o7777, new.st_nlink) == (7, 8, 0o4750, 2)
    assert (tree / "srv/d").stat().st_mode & 0o7777 == 0o1777
    assert not (tree / "etc/group").exists() and os.listdir(tree / "root") == ["here"]
    assert (tree / "root/here").stat().st_mtime == 7
    assert (tree / "srv/fifo").is_fifo() and (tree / "srv/sparse").stat().st_size == (5 << 20) + 1
    names = {os.fsencode(name) for name in os.listdir(tree / "srv/d")}
    assert names == {b"hard", "naïve".encode(), b"\xff", b"%0200d" % 7}
    run("umoci", "unpack", "--image", f"{layout}:docker.io/library/app:2", state / "second")
    assert os.listdir(state / "second/rootfs/srv/d") == ["x"]


@requires("root", "command:podman", "command:skopeo")
def test_podman_runs_it(layout: Path, state: Path, podman: list[str], minibox: Run) -> None:
    archive = f"{state}/app.tar"
    run("skopeo", "copy", "--insecure-policy", f"oci:{layout}:docker.io/library/app:2", f"oci-archive:{archive}:app:2")
    image = run(*podman, "load", "--quiet", "--input", archive).split()[-1]
    start = ["run", "--rm", "--network", "none", "--cgroups", "disabled", "--ulimit", "host", image]
    assert run(*podman, *start) == "/root:\nhere\n\n/srv/d:\nx\n"
    check = "stat -c '%u:%g %a' /etc/new; ls /etc/group /srv/fifo 2> /dev/null; echo $A; pwd"
    assert run(*podman, *start, "sh", "-c", check) == "7:8 4750\n/srv/fifo\nb\n/srv\n"
    # And the other way round: what podman packs of it is no change to us.
    run(*podman, "save", "--quiet", "--format", "oci-archive", "--output", f"{state}/again.tar", image)
    assert minibox("load", "--input", f"{state}/again.tar").returncode == 0
