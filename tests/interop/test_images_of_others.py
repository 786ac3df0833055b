"""A store that minibox prunes and others write: each sees what the other left."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from minibox.base.home import Home
from minibox.engine.upkeep import check, images
from minibox.image.archive.importer import add_image
from minibox.image.layout.inventory import inventory
from minibox.image.store import ImageStore
from tests.probes import requires
from tests.stores import add_blob
from tests.unit.layers import tar_of


@pytest.fixture
def store(session_directory, tmp_path_factory):
    path = session_directory / tmp_path_factory.mktemp("others").name
    path.mkdir(exist_ok=True)
    return ImageStore(str(path))


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo_copy(store: ImageStore, source: str, target: str) -> None:
    place = f"oci:{store.root}/images"
    run("skopeo", "copy", "--insecure-policy", f"{place}:{source}", f"{place}:{target}")


@requires("command:skopeo", "command:umoci")
def test_others_read_a_store_with_images_that_have_no_name(store):
    add_image(store.layout, "app:1", [tar_of({"a": b"1"})])
    made = add_image(store.layout, "app:1", [tar_of({"a": b"2"})])
    assert [len(image.names) for image in inventory(store.layout)].count(0) == 1
    name = "docker.io/library/app:1"
    assert json.loads(run("skopeo", "inspect", f"oci:{store.root}/images:{name}"))["Digest"] == made.digest
    assert run("umoci", "ls", "--layout", f"{store.root}/images").split() == [name]
    run("umoci", "gc", "--layout", f"{store.root}/images")
    assert check.check(Home(store.root)).findings == ()
    assert len(images.prune(Home(store.root, f"{store.root}/run")).deleted) == 1
    assert json.loads(run("skopeo", "inspect", f"oci:{store.root}/images:{name}"))["Digest"] == made.digest
    assert check.check(Home(store.root)).findings == ()


@requires("command:skopeo")
def test_what_skopeo_writes_is_listed_checked_and_removed(store):
    add_image(store.layout, "app:1", [tar_of({"a": b"1"})])
    other = add_image(store.layout, "app:2", [tar_of({"a": b"2"})])
    skopeo_copy(store, "docker.io/library/app:1", "copied")
    skopeo_copy(store, "docker.io/library/app:2", "copied")  # what had the name loses it
    names = {name.familiar for image in inventory(store.layout) for name in image.names}
    assert names == {"app:1", "app:2", "copied:latest"}
    assert check.check(Home(store.root)).damaged == 0
    assert images.remove(Home(store.root, f"{store.root}/run"), "copied").untagged == ("copied:latest",)
    assert images.remove(Home(store.root, f"{store.root}/run"), "app:2").deleted[0] == other.config_digest
    for name in os.listdir(f"{store.root}/images/blobs/sha256"):
        os.utime(f"{store.root}/images/blobs/sha256/{name}", (0, 0))
    images.prune(Home(store.root, f"{store.root}/run"))
    assert check.check(Home(store.root)).findings == ()
    assert json.loads(run("skopeo", "inspect", f"oci:{store.root}/images:docker.io/library/app:1"))["Layers"]


def test_pruning_spares_what_skopeo_has_written_and_not_yet_named(store):
    add_image(store.layout, "app:1", [tar_of({"a": b"1"})])
    unnamed = add_blob(store.layout, tar_of({"b": b"a layer whose manifest is still to come"}).getvalue())
    images.prune(Home(store.root, f"{store.root}/run"), everything=True)
    assert os.path.exists(store.layout.blob_path(unnamed))


@requires("root", "command:skopeo", "command:umoci")
def test_what_umoci_and_skopeo_make_in_the_store_runs(minibox, state):
    options = ("--rm", "--network", "none", "--pull", "never")
    assert minibox("run", *options, "base", "true").returncode == 0
    layout, bundle = f"{state}/root/images", state / "bundle"
    run("umoci", "unpack", "--image", f"{layout}:docker.io/library/base:latest", str(bundle))
    (bundle / "rootfs/more").write_text("umoci's")
    run("umoci", "repack", "--image", f"{layout}:umocis", str(bundle))
    run("skopeo", "copy", "--insecure-policy", f"oci:{layout}:umocis", f"oci:{layout}:skopeos")
    for name in ("umocis", "skopeos"):
        done = minibox("run", *options, name, "cat", "/more")
        assert done.stdout == "umoci's", done.stderr
