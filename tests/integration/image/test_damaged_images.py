"""Images that are damaged: `system check` names and repairs them, and everything else works."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests import images
from tests.probes import requires

pytestmark = requires("root")


@pytest.fixture
def store(state: Path) -> Path:
    """The state root."""
    return state / "root"


def digest_of(minibox, name: str) -> str:
    return minibox("images", "--format", "{{.Digest}}", name, check=True).stdout.strip().removeprefix("sha256:")


def test_check_names_damage_and_repair_makes_room_for_what_is_whole(minibox, store):
    images.derive(store, "good", images.file("one", b"one"))
    images.derive(store, "bad", images.file("two", b"two"))
    for name in ("good", "bad"):
        minibox("run", "--rm", "--network", "none", name, "true", check=True)
    assert minibox("system", "check").stdout.endswith("nothing damaged, nothing left over\n")
    manifest = json.loads((store / "images/blobs/sha256" / digest_of(minibox, "bad")).read_text())
    layer = store / "images/blobs/sha256" / manifest["layers"][-1]["digest"][7:]
    layer.write_bytes(layer.read_bytes()[:-1] + b"x")
    (store / "tmp/left").touch()
    (store / "layers/unfinished-abc").mkdir()
    done = minibox("system", "check")
    assert done.returncode == 1
    assert f"damaged   blob {manifest['layers'][-1]['digest']}: its content has another digest" in done.stdout
    assert "(needed by bad:latest)" in done.stdout and "leftover  tmp/left: unfinished" in done.stdout
    assert "1 damaged, 2 left over" in done.stdout and "--repair" in done.stderr
    done = minibox("system", "check", "--repair")
    assert done.returncode == 1 and "pull or load bad:latest again" in done.stderr
    assert "is missing" in done.stdout and "left over" in done.stdout
    assert not layer.exists() and minibox("run", "--rm", "--network", "none", "good", "true").returncode == 0
    images.derive(store, "bad", images.file("two", b"two"))
    assert minibox("system", "check").returncode == 0
    report = json.loads(minibox("system", "check", "--quick", "--json").stdout)
    assert report["findings"] == [] and report["counts"]["images"] == 3


@pytest.mark.parametrize("digest", ["../../../etc/passwd", 5, "sha256:" + "A" * 64])
def test_an_entry_that_leads_nowhere_goes_and_costs_no_other_its_name(minibox, store, digest):
    index = store / "images/index.json"
    found = json.loads(index.read_text())
    index.unlink()  # it has other names, in other tests
    index.write_text(json.dumps({**found, "manifests": [{"digest": digest}, *found["manifests"]]}))
    done = minibox("system", "check", "--quick")
    assert done.returncode == 1 and "damaged   index.json: " in done.stdout, done
    done = minibox("system", "check", "--quick", "--repair")
    assert done.returncode == 0 and json.loads(index.read_text())["manifests"] == found["manifests"], done


def test_a_damaged_image_is_listed_and_can_be_removed(minibox, store):
    images.derive(store, "bad", images.file("two", b"two"))
    (store / "images/blobs/sha256" / digest_of(minibox, "bad")).write_text("{")
    done = minibox("images")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 3
    assert "minibox: damaged image: blob sha256:" in done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines() if line.endswith("damaged")] == [["bad", "latest"]]
    done = minibox("run", "--rm", "bad", "true")
    assert done.returncode == 125 and "is damaged" in done.stderr
    assert minibox("rmi", "bad").stdout.startswith("Untagged: bad:latest\nDeleted: sha256:")
    assert minibox("images").stderr == ""


def test_check_names_a_container_whose_state_or_layer_is_gone(minibox, store):
    minibox("run", "--network", "none", "--name", "web", "base", "true", check=True)
    (container,) = (store / "containers").iterdir()
    subprocess.run(["rm", "-r", *map(str, (store / "layers").iterdir())], check=True)
    done = minibox("system", "check")
    assert done.returncode == 1 and "damaged   container web: its layer sha256:" in done.stdout
    (container / "state.json").write_text("{")
    assert "container web: its state.json can't be read" in minibox("system", "check").stdout
    minibox("rm", container.name, check=True)
    assert minibox("system", "check").returncode == 0
