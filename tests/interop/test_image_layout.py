"""skopeo and umoci read the store as it is, and the store reads what they write."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from minibox.image.importer import add_image
from minibox.image.store import ImageStore
from tests.images import lowers
from tests.probes import requires
from tests.unit.layers import directory, entry, tar


@pytest.fixture
def store(session_directory, tmp_path_factory):
    path = session_directory / tmp_path_factory.mktemp("layout").name
    path.mkdir(exist_ok=True)
    return ImageStore(str(path))


@pytest.fixture
def image(store):
    below = tar([directory("./"), entry("removed", content=b"1"), entry("kept", content=b"1")])
    above = tar([entry(".wh.removed"), entry("new", content=b"2", uid=3)])
    return add_image(store, "team/app:1", [below, above], {"Cmd": ["/new"], "Env": ["A=b"]})


def run(*command, cwd=None):
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@requires("command:skopeo")
def test_skopeo_reads_and_copies_the_store(store, image, tmp_path):
    source = f"oci:{store.root}/images:{image.reference}"
    seen = json.loads(run("skopeo", "inspect", source))
    assert seen["Digest"] == image.digest
    assert seen["Env"] == ["A=b"]
    run("skopeo", "copy", "--insecure-policy", source, f"dir:{tmp_path}/out")
    assert json.loads((tmp_path / "out/manifest.json").read_text())["config"]["size"] > 0


@requires("command:skopeo")
@pytest.mark.parametrize("name", ["copied", "copied:latest", "docker.io/library/copied:latest"])
@pytest.mark.parametrize("compress", [False, True])
def test_what_skopeo_brings_is_an_image(store, image, name, compress):
    flags = ["--dest-compress", "--dest-compress-format", "gzip"] if compress else []
    store.resolve("team/app:1")
    run("skopeo", "copy", "--insecure-policy", *flags, f"oci:{store.root}/images:{image.reference}",
        f"oci:{store.root}/images:{name}")  # fmt: skip
    copied = store.resolve("copied")
    assert copied.chain_ids == image.chain_ids
    assert copied.config["config"]["Cmd"] == ["/new"]
    assert len(lowers(store, copied)) == 2
    assert store.resolve("team/app:1").digest == image.digest


@requires("command:umoci", "root")
def test_umoci_unpacks_the_store_as_minibox_does(store, image, tmp_path):
    layout = f"{store.root}/images"
    assert image.reference in run("umoci", "ls", "--layout", layout).split()
    run("umoci", "unpack", "--image", f"{layout}:{image.reference}", str(tmp_path / "bundle"))
    tree = tmp_path / "bundle/rootfs"
    assert sorted(path.name for path in tree.iterdir() if path.is_file()) == ["kept", "new"]
    assert (tree / "new").stat().st_uid == 3
    config = json.loads((tmp_path / "bundle/config.json").read_text())
    assert config["process"]["args"] == ["/new"]


@requires("command:umoci", "root")
def test_a_layer_of_umocis_is_read(store, image, tmp_path):
    layout = f"{store.root}/images"
    bundle = str(tmp_path / "bundle")
    run("umoci", "unpack", "--image", f"{layout}:{image.reference}", bundle)
    (tmp_path / "bundle/rootfs/kept").unlink()
    (tmp_path / "bundle/rootfs/more").write_text("3")
    run("umoci", "repack", "--image", f"{layout}:changed", bundle)
    run("umoci", "gc", "--layout", layout)
    changed = store.resolve("changed")
    top = Path(lowers(store, changed)[0])
    assert (top / "more").read_text() == "3"
    assert (top / "kept").is_char_device()
    assert store.resolve("team/app:1").digest == image.digest


@requires("command:skopeo", "root")
def test_base_is_read_by_skopeo(store):
    image = store.resolve("base")
    seen = json.loads(run("skopeo", "inspect", f"oci:{store.root}/images:{image.reference}"))
    assert seen["Architecture"] == image.config["architecture"]
