"""skopeo and umoci read the store as it is, and the store reads what they write."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings

from minibox.errors import StoreError
from minibox.image.archive.importer import add_image
from minibox.image.layer.unpack import unpack
from minibox.image.layout.manifest import layer_descriptors
from minibox.image.store import ImageStore
from minibox.linux.removal import remove_tree
from tests.file_trees import tree_of
from tests.images import lowers
from tests.probes import requires
from tests.unit.layers import directory, entry, tar
from tests.unit.unusual_layers import unusual_layers


@pytest.fixture
def store(session_directory, tmp_path_factory):
    path = session_directory / tmp_path_factory.mktemp("layout").name
    path.mkdir(exist_ok=True)
    return ImageStore(str(path))


@pytest.fixture
def image(store):
    below = tar([directory("./"), entry("removed", content=b"1"), entry("kept", content=b"1")])
    above = tar([entry(".wh.removed"), entry("new", content=b"2", uid=3)])
    return add_image(store.layout, "team/app:1", [below, above], {"Cmd": ["/new"], "Env": ["A=b"]})


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


@requires("command:umoci", "root")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(unusual_layers)
def test_unusual_layers_mean_what_they_mean_to_umoci(tmp_path, layers):
    """Where umoci says what they mean. Implied directories have other times there; a node 0:0 is a device, which
    overlayfs can't show."""
    assume(all(header.type != tarfile.CHRTYPE for each in layers for header, _ in each))
    place = Path(tempfile.mkdtemp(dir=tmp_path))
    store = ImageStore(str(place))
    try:
        image = add_image(store.layout, "app:1", [tar(each) for each in layers], {})
        for number, descriptor in enumerate(layer_descriptors(store.layout, image.digest, image.config)):
            (place / "tree").mkdir(exist_ok=True)
            with open(store.layout.blob_path(descriptor[0]["digest"]), "rb", buffering=0) as blob:
                unpack(blob, str(place / "tree"), form="apply" if number else "overlay")
        command = ["umoci", "unpack", "--image", f"{store.root}/images:{image.reference}", str(place / "bundle")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return
        ours, theirs = (
            {path: (file.kind, file.content, file.first) for path, file in tree_of(top).items()}
            for top in (place / "tree", place / "bundle/rootfs")
        )
        assert ours == theirs
    except StoreError:
        return
    finally:
        remove_tree(str(place))
