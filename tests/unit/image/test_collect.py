"""What belongs to whom: sizes, and what a collection takes and leaves."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibox.engine.resources.image_usage import UNNAMED_KEPT_S, Uses, look, usage
from minibox.engine.upkeep import image_check as check
from minibox.engine.upkeep import image_garbage as collect
from minibox.errors import StoreError
from minibox.image.archive.importer import add_image
from minibox.image.layout.image import ResolvedImage
from minibox.image.layout.inventory import inventory
from minibox.image.layout.layout import Layout
from minibox.image.layout.reach import reach
from minibox.image.store import ImageStore
from minibox.storage.drivers import snapshotter
from tests.stores import add_blob, remove_name
from tests.unit.layers import tar, tar_of

NOBODY = Uses((), frozenset(), frozenset())


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(str(tmp_path / "root"))


def make(store: ImageStore, name: str, *layers: str, unpacked: bool = True) -> ResolvedImage:
    """An image of layers that each have one file of a few blocks, the same for the same word."""
    tars = [tar_of({f"{word}.bin": random.Random(word).randbytes(20_000)}) for word in layers]
    image = add_image(store.layout, name, tars, {"Labels": {"name": name}})
    if unpacked:
        snapshotter(store.root).unpack(store.layer_sources(image))
    return image


def age(store: ImageStore) -> None:
    """Make every blob old enough to be collected only because nothing names it."""
    for path in Path(store.root, "images/blobs/sha256").iterdir():
        os.utime(path, (0, time.time() - UNNAMED_KEPT_S - 1))


def du(store: ImageStore) -> int:
    """Bytes below the root that are blobs and layers, as du(1) counts them."""
    paths = [*Path(store.root, "images/blobs").rglob("*"), *Path(store.root, "layers").rglob("*")]
    return sum(path.lstat().st_blocks * 512 for path in paths)


def blobs(store: ImageStore) -> set[str]:
    return {f"sha256:{name}" for name in os.listdir(f"{store.root}/images/blobs/sha256")}


def layers(store: ImageStore) -> set[str]:
    return set(snapshotter(store.root).layers())


def test_what_an_image_leads_to(store):
    first, second = make(store, "one", "a", "b"), make(store, "two", "a", "c")
    one, two = reach(store.layout, [first.digest]), reach(store.layout, [second.digest])
    assert one.blobs | two.blobs == blobs(store) and len(one.blobs & two.blobs) == 1
    assert one.chain_ids == set(first.chain_ids) and two.chain_ids == set(second.chain_ids)


def test_an_index_leads_to_the_images_of_all_platforms_and_to_what_isnt_there(store):
    made = make(store, "one", "a")
    other = "sha256:" + "0" * 64
    index = {
        "manifests": [{"digest": made.digest}, {"digest": other}, {"digest": "sha256:no"}, 5, {"digest": 5}],
        "subject": {"digest": other[:-1] + "1"},
        "layers": "none",
    }
    descriptor = store.layout.write_json(index, "application/vnd.oci.image.index.v1+json")
    found = reach(store.layout, [descriptor["digest"]])
    assert found.blobs == blobs(store) | {other, other[:-1] + "1"}
    assert found.chain_ids == set(made.chain_ids)


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=4) | st.sampled_from(["sha256:" + "0" * 64]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["manifests", "layers", "config", "digest", "rootfs", "diff_ids", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON)
@settings(max_examples=60)
def test_no_document_stops_who_counts(tmp_path_factory: pytest.TempPathFactory, document: Any):
    layout = Layout(str(tmp_path_factory.mktemp("root")))
    layout.create()
    data = json.dumps(document).encode()
    digest = add_blob(layout, data)
    assert digest in reach(layout, [digest]).blobs
    layout.set_name("x", {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1})
    (image,) = inventory(layout)
    assert image.error or image.id
    assert all(each.kind == check.DAMAGED for each in check.check_images(layout, NOBODY))


def test_bytes_are_shared_or_unique_and_blobs_and_layers_are_what_is_on_disk(store):
    make(store, "one", "a", "b")
    make(store, "two", "a", "c")
    make(store, "three", "d", unpacked=False)
    images = inventory(store.layout)
    found = usage(store.layout, look(store.layout), images, NOBODY)
    by_name = {image.names[0].familiar.partition(":")[0]: row for image, row in zip(images, found.images)}
    shared = by_name["one"].shared_bytes
    assert shared == by_name["two"].shared_bytes == 20_000 and by_name["three"].shared_bytes == 0
    assert by_name["one"].size_bytes == 40_000 and by_name["three"].size_bytes == 20_000  # unpacked or not
    assert (
        sum(row.unique_bytes for row in found.images) + shared == found.size_bytes == found.reclaimable_bytes == 80_000
    )
    assert found.leftover_bytes == 0
    assert (found.blobs, found.used_blobs) == (len(blobs(store)), 0)
    assert found.blob_bytes == found.reclaimable_blob_bytes > by_name["one"].blob_bytes > 40_000
    unpacked = 3 * (20_480 + 2 * 4096)  # whole blocks, and two directories each
    assert abs(found.blob_bytes + unpacked - du(store)) <= 3 * 4096  # the directories that hold all


def test_a_removal_gives_back_what_was_unique(store):
    first = make(store, "one", "a", "b")
    second = make(store, "two", "a", "c")
    row = usage(store.layout, look(store.layout), inventory(store.layout), NOBODY).images[0]
    image = inventory(store.layout)[0]
    gone, kept = (first, second) if image.digest == first.digest else (second, first)
    before = du(store)
    collect.condemn(store.layout, [image], inventory(store.layout))
    remove_name(store.layout, image.names[0].text)
    done = collect.collect(store.layout, lambda: NOBODY)
    assert done.freed_bytes == before - du(store) > row.unique_bytes == 20_000
    assert set(done.chain_ids) == set(gone.chain_ids) - set(kept.chain_ids)
    assert reach(store.layout, [kept.digest]).blobs == blobs(store) and set(kept.chain_ids) == layers(store)


@pytest.mark.parametrize(
    ("needed", "keeps_blobs", "keeps_layers"),
    [
        (lambda image: Uses((), frozenset(), frozenset()), False, False),
        (lambda image: Uses((image.digest,), frozenset(), frozenset()), True, False),
        (lambda image: Uses((), frozenset(("overlay", each) for each in image.chain_ids), frozenset()), False, True),
        (lambda image: Uses((), frozenset(("btrfs", each) for each in image.chain_ids), frozenset()), False, False),
        (lambda image: Uses((image.digest,), frozenset(), frozenset(image.chain_ids)), True, True),
    ],
)
def test_what_a_container_needs_stays(store, needed, keeps_blobs, keeps_layers):
    image = make(store, "one", "a", "b")
    parts = reach(store.layout, [image.digest]).blobs
    collect.condemn(store.layout, inventory(store.layout), inventory(store.layout))
    remove_name(store.layout, "docker.io/library/one:latest")
    collect.collect(store.layout, lambda: needed(image))
    assert blobs(store) == (set(parts) if keeps_blobs else set())
    assert layers(store) == (set(image.chain_ids) if keeps_layers else set())


def test_what_nothing_names_stays_as_long_as_another_tool_may_be_writing_it(store):
    store.layout.create()
    young = add_blob(store.layout, b"young")
    old = add_blob(store.layout, b"old")
    os.utime(store.layout.blob_path(old), (0, 0))
    collect.collect(store.layout, lambda: NOBODY)
    assert blobs(store) == {young}


def test_a_killed_removal_is_finished_by_the_next(store, monkeypatch):
    """After each single step in turn: the rest of the store is as it was, and the next collection ends it."""
    real_unlink = os.unlink
    done, steps = False, 0
    while not done:
        kept, gone = make(store, "kept", "a", "b"), make(store, "gone", "a", "c", "d")
        images = inventory(store.layout)
        collect.condemn(store.layout, [image for image in images if image.digest == gone.digest], images)
        remove_name(store.layout, "docker.io/library/gone:latest")
        left, steps = iter(range(steps)), steps + 1

        def unlink(*args: Any, left: Any = left, **kwargs: Any) -> None:
            next(left)
            real_unlink(*args, **kwargs)

        monkeypatch.setattr(os, "unlink", unlink)
        try:
            collect.collect(store.layout, lambda: NOBODY)
            done = True
        except StopIteration:
            done = False
        monkeypatch.undo()
        assert check.check_images(store.layout, NOBODY) == [] or not done
        assert not [each for each in check.check_images(store.layout, NOBODY) if each.kind == check.DAMAGED]
        assert not [each for each in check.check_layers(store.layout, NOBODY) if each.kind == check.DAMAGED]
        collect.collect(store.layout, lambda: NOBODY)
        assert blobs(store) == reach(store.layout, [kept.digest]).blobs and layers(store) == set(kept.chain_ids)
        assert [name for name in os.listdir(f"{store.root}/layers") if len(name) != 64] == []
    assert steps > 8


def test_a_layer_whose_removal_was_killed_can_be_unpacked_and_removed_again(store):
    image = make(store, "one", "a")
    (layer,) = image.chain_ids
    left = Path(store.root, "layers", f"removed-{layer[7:]}", "diff")
    left.mkdir(parents=True)
    (left / "half").touch()
    remove_name(store.layout, "docker.io/library/one:latest")
    collect.collect(store.layout, lambda: NOBODY)
    assert os.listdir(f"{store.root}/layers") == []


def test_a_damaged_index_keeps_everything(store):
    make(store, "one", "a")
    before = blobs(store)
    Path(store.root, "images/index.json").write_text("{")
    age(store)
    with pytest.raises(StoreError, match=r"index\.json is damaged"):
        collect.collect(store.layout, lambda: NOBODY)
    assert blobs(store) == before


# ---- check --------------------------------------------------------------------------------------


def damage_blob(store: ImageStore, image: ResolvedImage) -> str:
    digest = reach(store.layout, [image.digest]).blobs - {image.digest, image.config_digest}
    path = Path(store.layout.blob_path(min(digest)))
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    return "its content has another digest"


def cut_blob(store: ImageStore, image: ResolvedImage) -> str:
    blob = max(reach(store.layout, [image.digest]).blobs - {image.digest, image.config_digest})
    os.truncate(store.layout.blob_path(blob), 600)
    return "its content has another digest"


def lose_blob(store: ImageStore, image: ResolvedImage) -> str:
    os.unlink(
        store.layout.blob_path(max(reach(store.layout, [image.digest]).blobs - {image.digest, image.config_digest}))
    )
    return "is missing"


def lose_manifest(store: ImageStore, image: ResolvedImage) -> str:
    os.unlink(store.layout.blob_path(image.digest))
    return f"read blob {image.digest}: No such file"


def spoil_manifest(store: ImageStore, image: ResolvedImage) -> str:
    Path(store.layout.blob_path(image.digest)).write_text("{}")
    return f"blob {image.digest}"


def spoil_config(store: ImageStore, image: ResolvedImage) -> str:
    Path(store.layout.blob_path(image.config_digest)).write_bytes(b"\xff not JSON")
    return f"blob {image.config_digest}"


def change_file(store: ImageStore, image: ResolvedImage) -> str:
    path = next(Path(store.root, "layers", image.chain_ids[-1][7:], "diff").iterdir())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return f"/{path.name}: its content differs"


def shorten_file(store: ImageStore, image: ResolvedImage) -> str:
    path = next(Path(store.root, "layers", image.chain_ids[-1][7:], "diff").iterdir())
    os.truncate(path, 5)
    return f"/{path.name}: 5 bytes instead of 20000"


def lose_file(store: ImageStore, image: ResolvedImage) -> str:
    next(Path(store.root, "layers", image.chain_ids[-1][7:], "diff").iterdir()).unlink()
    return ".bin: it is missing"


def add_file(store: ImageStore, image: ResolvedImage) -> str:
    Path(store.root, "layers", image.chain_ids[-1][7:], "diff/more").mkdir()
    return "/more: not in the layer's blob"


def loop_blob(store: ImageStore, image: ResolvedImage) -> str:
    return _blob_to(store, image, "itself")


def lead_blob_nowhere(store: ImageStore, image: ResolvedImage) -> str:
    return _blob_to(store, image, "/nowhere")


def _blob_to(store: ImageStore, image: ResolvedImage, target: str) -> str:
    path = store.layout.blob_path(max(reach(store.layout, [image.digest]).blobs - {image.digest, image.config_digest}))
    os.unlink(path)
    os.symlink(os.path.basename(path) if target == "itself" else target, path)
    return f"sha256:{os.path.basename(path)}"


@pytest.mark.parametrize(
    "harm",
    [damage_blob, cut_blob, lose_blob, loop_blob, lead_blob_nowhere, lose_manifest, spoil_manifest, spoil_config,
     change_file, shorten_file, lose_file, add_file],
)  # fmt: skip
def test_each_damage_is_named_and_costs_only_its_image(store, harm):
    good, bad = make(store, "good", "a"), make(store, "bad", "b", "c")
    assert check.check_images(store.layout, NOBODY) == check.check_layers(store.layout, NOBODY) == []
    problem = harm(store, bad)
    findings = [*check.check_images(store.layout, NOBODY), *check.check_layers(store.layout, NOBODY)]
    damaged = [each for each in findings if each.kind == check.DAMAGED]
    assert damaged and any(problem in f"{each.what}: {each.problem}" for each in damaged), findings
    assert {name for each in damaged for name in each.affects} == {"bad:latest"}
    assert store.resolve("good").digest == good.digest
    by_name = {image.names[0].familiar: image for image in inventory(store.layout)}
    assert not by_name["good:latest"].error


def test_a_quick_check_looks_at_names_and_sizes(store):
    image = make(store, "bad", "b")
    change_file(store, image)
    damage_blob(store, image)
    assert check.check_images(store.layout, NOBODY, content=False) == []
    assert check.check_layers(store.layout, NOBODY, content=False) == []
    cut_blob(store, image)
    (finding,) = check.check_images(store.layout, NOBODY, content=False)
    assert "has 600 bytes instead of" in finding.problem


@pytest.mark.parametrize("text", ["", "{}", '{"imageLayoutVersion": "2.0.0"}', "\xff"])
def test_the_layouts_own_files_are_verified(store, text):
    make(store, "good", "a")
    Path(store.root, "images/oci-layout").write_bytes(text.encode("latin-1"))
    (finding,) = check.check_images(store.layout, NOBODY)
    assert (finding.kind, finding.what) == (check.DAMAGED, "oci-layout")


def test_leftovers_are_no_damage(store):
    image = make(store, "one", "a")
    remove_name(store.layout, "docker.io/library/one:latest")
    findings = [*check.check_images(store.layout, NOBODY), *check.check_layers(store.layout, NOBODY)]
    assert {each.kind for each in findings} == {check.LEFTOVER} and len(findings) == 4
    needed = Uses((image.digest,), frozenset({("overlay", image.chain_ids[0])}), frozenset())
    assert check.check_images(store.layout, needed) == check.check_layers(store.layout, needed) == []


def test_whiteouts_links_and_repeated_names_are_no_damage(store, tmp_path):
    from tests.unit.layers import directory, entry, hard_link, symlink

    if os.geteuid():
        pytest.skip("whiteouts are devices")
    below = tar([directory("d"), entry("d/a", content=b"1"), entry("gone", content=b"2")])
    above = tar(
        [entry("x", content=b"old"), entry("x", content=b"newer"), hard_link("y", "x"), symlink("z", "/nowhere"),
         entry(".wh.gone"), entry("d/.wh..wh..opq"), directory("e", 0o711), entry("e/f/g", content=b"deep")]
    )  # fmt: skip
    image = add_image(store.layout, "one", [below, above])
    snapshotter(store.root).unpack(store.layer_sources(image))
    assert check.check_layers(store.layout, NOBODY) == []
    top = Path(store.root, "layers", image.chain_ids[1][7:], "diff")
    (top / "gone").unlink()
    (top / "y").unlink()
    (top / "y").write_text("newer")
    (top / "e").chmod(0o755)
    (finding,) = check.check_layers(store.layout, NOBODY)
    assert "/gone: its whiteout is missing" in finding.problem and "/y: not a hard link to /x" in finding.problem
    assert "/e: mode 0755 instead of 0711" in finding.problem
