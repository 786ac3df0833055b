"""Layers of `minibox build`: made by a rename, kept for later builds, and with a chain ID as a second name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minibox.engine.upkeep.image_garbage import collect
from minibox.engine.upkeep.images import uses
from minibox.image.layout.layout import Layout
from minibox.image.store import ImageStore
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import keep_layer, release_layer

LAYER, CHAIN_ID, KEY = "sha256:" + "a" * 64, "sha256:" + "b" * 64, "c" * 64


@pytest.fixture
def root(state: Path) -> str:
    return str(state / "root")


@pytest.mark.parametrize("driver", ["overlay", "copy", "erofs"])
def test_a_containers_files_become_a_layer_without_copying(root: str, driver: str) -> None:
    storage = snapshotter(root, driver)
    storage.make_empty(CHAIN_ID)
    snapshot = storage.prepare(KEY, (CHAIN_ID,))
    file = Path(snapshot.upper, "file")
    file.write_text("content")
    inode = file.stat().st_ino
    storage.adopt(KEY, LAYER)
    found = Path(storage.describe("none", (LAYER,)).lowers[0], "file")
    assert (found.stat().st_ino, found.read_text()) == (inode, "content")
    assert storage.is_unpacked((LAYER,))
    storage.remove(KEY)
    storage.prepare(KEY, (CHAIN_ID,))
    storage.adopt(KEY, LAYER)  # another build was faster: its layer stays
    assert found.exists()
    storage.remove(KEY)


@pytest.mark.parametrize("driver", ["overlay", "copy", "erofs"])
def test_a_second_name_keeps_its_layer_and_takes_no_space(root: str, driver: str) -> None:
    storage = snapshotter(root, driver)
    storage.make_empty(LAYER)
    storage.alias(CHAIN_ID, LAYER)
    storage.alias(CHAIN_ID, LAYER)
    assert storage.aliases() == {CHAIN_ID: LAYER}
    assert storage.is_unpacked((CHAIN_ID,))
    assert storage.layer_bytes(CHAIN_ID) == 0
    keep_layer(root, driver, CHAIN_ID)
    assert collected(root) == set()
    release_layer(root, driver, CHAIN_ID)
    assert collected(root) >= {LAYER, CHAIN_ID}
    assert not os.path.lexists(storage.describe("none", (CHAIN_ID,)).lowers[0])


def test_a_kept_layer_is_not_collected_until_it_is_released(root: str) -> None:
    storage = snapshotter(root)
    keep_layer(root, "overlay", LAYER)
    storage.make_empty(LAYER)
    assert LAYER not in collected(root)
    release_layer(root, "overlay", LAYER)
    release_layer(root, "overlay", LAYER)
    assert LAYER in collected(root)


def collected(root: str) -> set[str]:
    ImageStore(root).resolve("base")
    with Layout(root).collecting():
        found = collect(Layout(root), lambda: uses(root))
    return set(found.chain_ids) & {LAYER, CHAIN_ID}
