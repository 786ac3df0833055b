"""Layers with entries in any order and of any kind: the same tree with every driver, and nothing for `system check`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from minibox.engine.resources.image_usage import Uses
from minibox.engine.upkeep.image_check import check_layers
from minibox.errors import StoreError
from minibox.image.archive.importer import add_image
from minibox.image.store import ImageStore
from minibox.linux.removal import remove_tree
from minibox.storage.drivers import snapshotter
from tests.file_trees import differences, tree_of_snapshot
from tests.probes import requires
from tests.storage_places import new_file_system
from tests.unit.layers import tar
from tests.unit.unusual_layers import unusual_layers

NOBODY = Uses((), frozenset(), frozenset())


@pytest.fixture(scope="module")
def places(session_directory: Path) -> Iterator[dict[str, Path]]:
    """A place for the state root of each driver."""
    with ExitStack() as stack:
        btrfs = stack.enter_context(new_file_system("btrfs", session_directory))
        own = stack.enter_context(new_file_system("tmpfs", session_directory))
        yield {driver: btrfs if driver == "btrfs" else own for driver in ("overlay", "erofs", "btrfs", "copy")}


@requires("root", "command:mkfs.erofs", "command:mkfs.btrfs")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(unusual_layers)
def test_the_tree_is_the_same_with_every_driver(places, layers):
    trees, refused = {}, {}
    for driver, place in places.items():
        root = place / driver
        try:
            store = ImageStore(str(root))
            storage = snapshotter(str(root), driver)
            try:
                image = add_image(store.layout, "app", [tar(each) for each in layers], {})
                storage.unpack(store.layer_sources(image))
            except StoreError as error:
                refused[driver] = str(error).partition(": ")[2]
                continue
            trees[driver] = tree_of_snapshot(storage, storage.prepare("key", image.chain_ids))
            assert check_layers(store.layout, NOBODY) == []
        finally:
            storage.remove("key")
            for chain_id in storage.layers():
                storage.remove_layer(chain_id)
            remove_tree(str(root))
    if refused:
        assert set(refused) == set(places) and len(set(refused.values())) == 1
        return
    for driver, tree in trees.items():
        assert differences(trees["overlay"], tree) == [], driver
